package hint

import (
	"reflect"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// KeyPage is the page on which owners create keys (platform documentation, "Claude Code").
const KeyPage = "https://agrenting.com/dashboard/api-keys"

// Credential describes the credential of a request, such as {Source: Source{Name:
// "AGRENTING_API_KEY"}, Dead: true}. The zero value means that the client is anonymous. Most
// programs only set Source after [Describe].
type Credential struct {
	Kind        secret.Kind
	Fingerprint string
	// Source is where the credential comes from. Initial is where the first key of a store
	// comes from; it is zero without a store.
	Source, Initial Source
	// Exchanged is set if the credential is a session that the SDK has obtained with the
	// key of Source.
	Exchanged bool
	// Marked is set if the credential begins with ap_, as user tokens do.
	Marked bool
	// Expired is when the credential expired, according to its own expiry; zero if it has not
	// expired.
	Expired time.Time
	// Alive and Dead are what the platform says when asked. If both are false, the verdict is
	// unknown.
	Alive, Dead bool
}

// Source is where a credential comes from.
type Source struct {
	Name  string // an option or a variable, such as AGRENTING_KEY_FILE
	Place string // the path of a file, or the name of a store; may be empty
}

// String returns the name and the place, such as AGRENTING_KEY_FILE ("/run/key").
func (s Source) String() string {
	if s.Place == "" {
		return s.Name
	}
	return s.Name + " (" + s.Place + ")"
}

func (s Source) isVariable() bool { return strings.HasPrefix(s.Name, variablePrefix) }

// into says how a valid credential is put into the source.
func (s Source) into() string {
	switch {
	case s.isVariable() && s.Place != "":
		return "put a valid one into " + s.Place + ", the file of " + s.Name
	case s.isVariable():
		return "put a valid one into " + s.Name
	case s.Name == "WithCredential":
		return "pass a valid one to WithCredential"
	default:
		return "make sure that " + s.String() + " returns a valid one"
	}
}

// Describe describes c. verdict is what is known about c.
func Describe(c secret.Credential, verdict evidence.Verdict) *Credential {
	d := &Credential{
		Kind: c.Kind(), Fingerprint: c.Fingerprint(), Marked: c.Marked(),
		Alive: verdict == evidence.Alive, Dead: verdict == evidence.Dead,
	}
	if end := c.Expires(); !end.IsZero() && !time.Now().Before(end) {
		d.Expired = end
	}
	return d
}

// Place describes a source or a store in an error, as [secret.NameOf] does. It returns "" for
// nil and for functions.
func Place(from any) string {
	if from == nil || reflect.TypeOf(from).Kind() == reflect.Func {
		return ""
	}
	return secret.Clean(secret.NameOf(from))
}

// Subject names a credential: its kind, its fingerprint, and its source.
func (c *Credential) Subject() string {
	text := "the " + c.Kind.String() + " " + c.Fingerprint
	if c.Exchanged {
		return text + " of the key from " + c.Source.String()
	}
	return text + " from " + c.Source.String()
}

// Rejected says what a 401 to a credential means and what to do.
func (c *Credential) Rejected() string {
	switch {
	case c.Kind == 0:
		return "The request had no credential, because the client is anonymous. Set " + apiKeyVariable + ", or pass WithCredential instead of " + c.Source.Name
	case c.Alive:
		return "The platform accepts " + c.Subject() + " for other requests, so this route refuses it. " +
			"Check whether the route takes a credential of this kind"
	}
	text := "The platform rejected " + c.Subject()
	if c.Dead {
		text += ", and confirmed that when asked"
	}
	text += ". "
	if guess := c.wrongKind(); guess != "" {
		return text + guess + ". Otherwise, " + c.replace()
	}
	if c.Kind == secret.KindSession && !c.Exchanged {
		if !c.Expired.IsZero() {
			text += "It expired at " + c.Expired.UTC().Format(time.RFC3339) + ". "
		}
		return text + "A session token that you supply is not renewed. Replace it, or use the API key with WithSession"
	}
	return text + "It is invalid, expired, or revoked: " + c.replace()
}

// replace says where a valid credential must be put.
func (c *Credential) replace() string {
	text := c.Source.into()
	if c.Initial.Name != "" {
		text = c.Initial.into() + "; the store adopts it"
	}
	if c.Kind != secret.KindUserToken {
		text += " (keys come from " + KeyPage + ")"
	}
	return text
}

const (
	variablePrefix = "AGRENTING_"
	apiKeyVariable = "AGRENTING_API_KEY" // #nosec G101 -- the name of a variable
	typeVariable   = "AGRENTING_CREDENTIAL_TYPE"
)

// wrongKind says what to do if the credential seems to be of another kind; otherwise it
// returns "". The prefix is only a guess, because a page of the platform gives agents keys
// with ap_.
func (c *Credential) wrongKind() string {
	variable := c.Source.isVariable()
	switch {
	case c.Kind == secret.KindUserToken && !c.Marked:
		text := "It does not begin with ap_, as user tokens do, and was sent as a bearer token. If it is the API key of an agent, "
		if variable {
			return text + "unset " + typeVariable + ", or set it to api_key"
		}
		return text + "make it with APIKey instead of UserToken"
	case c.Kind == secret.KindAPIKey && c.Marked:
		text := "It begins with ap_, as user tokens do, and was sent as an API key. If it is a user token, "
		if variable {
			return text + "unset " + typeVariable + ", or set it to user_token"
		}
		return text + "make it with UserToken instead of APIKey"
	default:
		return ""
	}
}
