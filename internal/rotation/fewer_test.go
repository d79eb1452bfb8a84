//go:build race && !every

package rotation

// fewerScenarios is sdktest.FewerScenarios, which tests of this package cannot import.
const fewerScenarios = true
