package agrenting_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	promise  = regexp.MustCompile(`(?m)^(\d+)\. `)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
)

// promiseTests has the tests of each promise in SECURITY.md, by its number.
var promiseTests = map[int][]string{
	1: {"TestOneCredentialOnTheWire", "TestEachKindTravelsInItsHeader", "TestKindOfTheCredentialChoosesTheParameter"},
	2: {"TestTheCallersCredentialHeaderWins"},
	3: {"TestCredentialsAreSentOnlyToPinnedOrigins", "TestPinnedOriginIsDialed", "FuzzOrigin"},
	4: {"TestForeignRedirectRemovesCredentials", "TestTheKeyFollowsNoRedirect", "TestUserInformationInRedirect"},
	5: {
		"TestPlainHTTPToPinnedHostGetsNoCredential", "TestInsecureHTTPNeedsItsOption", "TestLoopbackUsesNoProxy",
		"TestOnlyLoopbackIsSecureWithoutTLS", "TestProxyDoesNotGetRequestsForLoopback",
	},
	6: {"TestEnvironmentCheckCoversEveryCredential", "TestEnvironmentCheckCoversRenewedCredentials", "TestUnmarkedTokensNeedOptIn"},
	7: {
		"TestOnlySafeTransientFailuresAreRetried", "TestIdempotencyKeyIsTheSameInAllAttempts",
		"TestBodyIsReplayedCompletely",
	},
	8:  {"TestFetchBegunBeforeRejectionIsDiscarded"},
	9:  {"TestFailedRenewalAfterExpiryFailsReaders"},
	10: {"TestExchangesInAMinuteAreLimited", "TestLimitIsSharedThroughTheStore", "TestPlatformRefusingEverythingCausesFewExchanges"},
	11: {"TestTextIsRedactedByEveryVerb", "TestTextIsRedactedByEncodersAndLoggers", "TestValuesPrintNoSecret"},
	12: {
		"TestRedactDecodes", "FuzzRedactDecodes", "TestQuotingBase_request_showsNoCredential",
		"TestQuotingBase_exchange_showsNoCredential", "TestQuotingBase_rotation_showsNoCredential",
		"TestFailedRotationShowsNoSecret", "TestACrashDoesNotPrintASecret",
	},
	13: {"TestAClientPrintsAsASummary", "TestClientPrintsNoSecret"},
	14: {"TestTextRevealAndEqual"},
	15: {"TestExplicitCredentialSkipsEnvironment", "TestClientsAreIndependent"},
	16: {"TestKeysStayOutOfBrowsers"},
	17: {"TestFilesAreForTheirOwnerOnly", "TestWriteErrorLeavesOldOrNewContent"},
	18: {
		"TestUnsafeFileErrorHasFixingCommand", "TestFileStoreLeavesUnusableFilesIntact",
		"TestStoredKeyOfOtherPlaceIsNotUsed", "TestFileStoreRefusesFilesOpenToOthers",
	},
	19: {
		"TestRotationSurvivesAStopAtAnyOperation", "TestLedger_anyTwoFaults", "TestReplacedResponsesLeaveOneKey",
		"TestARotationLeavesKeysOfOthersAlone",
	},
	20: {"TestStoreRefusingNewKeyDoesNotLoseIt", "TestLostRecordIsWrittenBack"},
	21: {"TestConcurrentRotationsRunOneAtATime"},
	22: {
		"TestHooks_ofCaller_seeNoCredential", "TestHooks_ofCaller_seeNoExchange", "TestHooks_areAllKnown",
		"TestClientTraceShowsNoCredential",
	},
	23: {"TestIssueResponse_error_isNotShown", "TestIssueResponse_error_showsCode"},
	24: {"TestQuotingSource_showsNoSecret", "TestRedactLikely"},
	25: {
		"TestRedactIsLinear", "TestTextsAreCutBeforeTheSearch", "TestErrorsKeepTwentyEntries",
		"TestErrorOfNetHTTPIsBounded", "TestTextsOfErrorsArePrintable", "TestTextsOfSourcesAndStoresArePrintable",
		"TestFailurePrintsOneVisibleLine", "TestPathsInErrorsAreEscapedAndRedacted",
	},
	26: {
		"TestUnsafePlacesAreRefused", "TestMountRootMayBeOpenToOthers", "TestWarningOfAStoreIsLoggedOnce",
		"TestUnsafeLocksAreRefused", "TestOpenRefusesLinksAndPipes",
		"TestHungStoreDoesNotBlockRequests",
	},
	27: {"TestCopiedSealedRecordsAreRefused", "TestSealedRecordsAreBoundToTheirNamespace"},
	28: {"TestHostsAndSchemesAreComparedAsASCII", "TestOnlyLettersOfASCIIAreFolded"},
	29: {
		"TestListEndsAfterEmptyPages", "TestListRefusesLongCursors", "TestListRemembersDigestsOfCursors",
		"TestListChecksItsContextBetweenPages",
	},
	30: {
		"TestSecretsAreSentOnlyToEncryptedEndpoints", "TestPasswordsInEndpointsAreRefusedAndHidden",
		"TestOpenRequiresVerifiedConnections", "TestPasswordIsNotPrinted", "TestOpen_checksOptions", "TestConfigAndStore_hideCredentials",
	},
	31: {"TestRequestRemovesEchoedCredential", "TestRedactedBodyIsValidJSON"},
	32: {
		"FuzzCallersHeaders", "TestCallersHeadersAreComparedByLetters", "TestCallersParametersAreRemoved",
		"TestOnlyKnownMethodsPass", "TestAgentIsPinned", "TestEchoesAreRemoved", "TestTrailersAreFiltered",
		"TestInformationalResponsesAreFiltered",
	},
	33: {"TestOptionsAreValidated"},
}

// TestPromisesNameTheirTests reads SECURITY.md: each promise has tests, and they exist.
func TestPromisesNameTheirTests(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	promises := promise.FindAllStringSubmatch(string(b), -1)
	require.NotEmpty(t, promises)
	for i, m := range promises {
		assert.Equal(t, strconv.Itoa(i+1), m[1], "numbers of promises")
		assert.NotEmpty(t, promiseTests[i+1], "tests of promise %d", i+1)
	}
	assert.Len(t, promiseTests, len(promises), "entries without a promise")

	exists := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		code, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(code, -1) {
			exists[string(m[1])] = true
		}
		return err
	}))
	for number, names := range promiseTests {
		for _, name := range names {
			assert.True(t, exists[name], "promise %d names %s, which does not exist", number, name)
		}
	}
}
