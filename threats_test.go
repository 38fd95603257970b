package previewd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every threat that docs/threats.md names has tests, and they exist.
func TestThreatsAreTested(t *testing.T) {
	t.Parallel()
	exist := testFunctions(t)
	raw, err := os.ReadFile("docs/threats.md")
	require.NoError(t, err)
	names, rows := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`"), 0
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| threat |") {
			continue
		}
		require.Len(t, cells, 4, line)
		rows++
		tests := names.FindAllStringSubmatch(cells[2], -1)
		if cells[2] != "none" {
			require.NotEmpty(t, tests, line)
		}
		for _, name := range tests {
			require.Contains(t, exist, name[1], "it does not exist")
		}
	}
	require.Greater(t, rows, 30)
}

// testFunctions returns the text of each test function of the repository, by name.
func testFunctions(t *testing.T) map[string]string {
	t.Helper()
	function := regexp.MustCompile(`(?ms)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\..*?^}$`)
	texts := map[string]string{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range function.FindAllStringSubmatch(string(text), -1) {
			texts[found[1]] += found[0]
		}
		return err
	}))
	return texts
}

// reached says which tests have a real tree, build or server come to a code of a
// failure.
var reached = map[string]string{
	"FailBundle":                "TestEmptyImportIsTheAuthorsFault",
	"FailBundlerCrashed":        "TestDeepNestingFailsOneBuild",
	"FailDependencyUnavailable": "TestFailuresOfInstalls",
	"FailUnsafePath":            "TestTreeCannotReachOut",
	"FailRunnerUnavailable":     "TestChoose",
	"FailSSRAdapter":            "TestFailuresOfInstalls",
	"FailWorkspace":             "TestFailuresOfInstalls",
	"FailNoIndex":               "TestChoose",
	"FailOutputTooLarge":        "TestTooLargeASiteIsRefused",
	"FailBadConfig":             "TestFailuresOfPackagesBuilds",
	"FailInstall":               "TestFailuresOfPackagesBuilds",
	"FailBuild":                 "TestFailuresOfPackagesBuilds",
	"FailEresolve":              "TestFailuresOfInstalls",
	"FailLockfile":              "TestFailuresOfInstalls",
	"FailEngine":                "TestFailuresOfInstalls",
	"FailRegistryUnreachable":   "TestRegistryAway",
	"FailNetworkBlocked":        "TestFailuresOfPackagesBuilds",
	"FailType":                  "TestTypeError",
	"FailNoOutputDir":           "TestFailuresOfPackagesBuilds",
	"FailOOM":                   "TestFailuresOfPackagesBuilds",
	"FailPidsLimit":             "TestFailuresOfPackagesBuilds",
	"FailDiskLimit":             "TestFailuresOfPackagesBuilds",
	"FailOutputLimit":           "TestFailuresOfPackagesBuilds",
	"FailInstallTimeout":        "TestPackagesBuildsEnd",
	"FailIdleTimeout":           "TestFailuresOfPackagesBuilds",
	"FailTimeout":               "TestPackagesBuildsEnd",
	"FailQueueTimeout":          "TestReaperEndsWhatNobodyTakes",
	"FailSecrets":               "TestSecretsThatCannotBeRead",
	"FailInfra":                 "TestCorruptSourceIsOurFault",
	"FailWorkerLost":            "TestReaperTakesBackLostBuilds",
}

// Every code of a failure is reached by a test that expects it.
func TestEachFailureIsReached(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("build.go")
	require.NoError(t, err)
	codes := regexp.MustCompile(`(?m)^\t(Fail[A-Z]\w+) += "`).FindAllStringSubmatch(string(raw), -1)
	require.Len(t, codes, len(reached), "a code is in one of the two lists only")
	texts := testFunctions(t)
	for _, code := range codes {
		name, ok := reached[code[1]]
		require.True(t, ok, "no test reaches %s", code[1])
		require.Regexp(t, `previewd\.`+code[1]+`\b`, texts[name], "%s does not expect %s", name, code[1])
	}
}
