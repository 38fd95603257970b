package toolchain

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
	"github.com/stretchr/testify/require"
)

// Ranges mean what npm's own reader of them says.
func TestRangesMeanWhatNpmSays(t *testing.T) {
	t.Parallel()
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("SKIPPED: npm is not on this machine, so nothing tells what ranges mean")
	}
	script, err := filepath.EvalSymlinks(npm)
	require.NoError(t, err)
	ranges := strings.Split("18,v18,18.x,18.*,^18.0.0,~18.20,>=18,>= 18,>18,<=18,<18,=18,>=18 <21,^18 || ^20,^18.0.0||^20.0.0,16 - 18,16.0.0 - 18.0,"+
		"*,x,>=14.x,<20.x,>=16.0.0 || 14,~>18,20.20.2,>20 <22,>20.20 <=22,^20.19.0 || >=22.12.0,18.x.x,< 19,^ 18,~ 18,v18.0.0 - v20,>=v18", ",")
	versions := []string{"0.12.18", "14.21.3", "16.20.2", "18.0.0", "18.20.8", "19.9.0", "20.0.0", "20.20.2", "22.14.0", "24.21.0"}
	question, err := json.Marshal([]any{ranges, versions})
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "node", "-e", `const {satisfies} = require("semver"), [ranges, versions] = JSON.parse(process.argv[1]);
		console.log(JSON.stringify(ranges.map(r => versions.filter(v => satisfies(v, r)).join(" "))))`, string(question))
	cmd.Dir = filepath.Dir(filepath.Dir(script))
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIPPED: npm's reader of ranges could not be asked: %v", err)
	}
	var answers []string
	require.NoError(t, json.Unmarshal(out, &answers))
	for i, text := range ranges {
		w, err := readWish(text)
		require.NoError(t, err, text)
		var ours []string
		for _, v := range versions {
			if w.fits(semver.MustParse(v)) {
				ours = append(ours, v)
			}
		}
		require.Equal(t, answers[i], strings.Join(ours, " "), text)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	versions := []string{"14.21.3", "22.9.0", "22.14.0", "22.13.0", "23.9.0", "25.1.0", "26.0.0-rc.1", "8.1.3-win9", "bad"}
	for wanted, version := range map[string]string{
		"22": "22.14.0", "22.13.x": "22.13.0", ">20": "22.14.0", "latest": "25.1.0", "node": "25.1.0", "*": "22.14.0",
		"lts/*": "22.14.0", "lts/jod": "22.14.0", "lts/fermium": "14.21.3", "23 || 25": "25.1.0", "26": "", "lts/iron": "",
	} {
		w, err := readWish(wanted)
		require.NoError(t, err)
		require.Equal(t, version, w.choose(versions), wanted)
	}
	for _, wanted := range []string{"lts/tea", "18 - - 20", ""} {
		_, err := readWish(wanted)
		require.ErrorIs(t, err, ErrUnreadable, wanted)
	}
}
