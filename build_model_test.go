package previewd_test

import (
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// What can break.
const (
	lostClaim    = "version of a lost claim"
	oneVersion   = "one version, if and only if completed"
	wrongShown   = "a build that did not complete is shown"
	epochBack    = "an epoch went back"
	wentOn       = "a build that was over went on"
	twoRun       = "two builds run"
	twoWait      = "two builds wait"
	olderWaits   = "an older build waits for a newer"
	notNewest    = "not the newest version is shown"
	pointerBack  = "the pointer went back"
	cancelBeaten = "a cancel that came first was beaten, or came from nowhere"
)

// wrongState names what a state breaks.
func (m buildModel) wrongState(p modelProject, found func(string)) {
	running, waiting, newest := 0, 0, uint8(0)
	for i, b := range p.builds {
		completed := b.is(previewd.BuildCompleted)
		if completed != (b.versions == 1) {
			found(oneVersion)
		}
		if b.versions > 0 && b.versionEpoch != b.epoch {
			found(lostClaim)
		}
		if int(p.current) == i+1 && !completed {
			found(wrongShown)
		}
		if completed {
			newest = uint8(i + 1)
		}
		if b.running() {
			running++
			if waiting > 0 {
				found(olderWaits) // worker.newerWaits takes what waits for newer than what runs
			}
		}
		if b.is(previewd.BuildQueued) {
			waiting++
		}
		canceled := b.is(previewd.BuildCanceling) || b.is(previewd.BuildCanceled) || b.is(previewd.BuildSuperseded)
		if canceled != (b.reason != 0) {
			found(cancelBeaten)
		}
	}
	if running > 1 {
		found(twoRun)
	}
	if waiting > 1 {
		found(twoWait)
	}
	if p.current != newest {
		found(notNewest)
	}
}

// wrongStep names what a step breaks.
func (m buildModel) wrongStep(p, next modelProject, found func(string)) {
	for i, b := range p.builds {
		if b.status != 0 && b.over() && b != next.builds[i] {
			found(wentOn)
		}
		if next.builds[i].epoch < b.epoch {
			found(epochBack)
		}
	}
	if next.current < p.current {
		found(pointerBack)
	}
}

func (m buildModel) require(t *testing.T, want result) {
	t.Helper()
	var broken findings[modelProject]
	g := explore(modelProject{}, func(p modelProject, to walker[modelProject]) {
		m.steps(p, func(step string, next modelProject, fair bool) {
			m.wrongStep(p, next, func(name string) { broken.add(name, finding[modelProject]{p, step}) })
			to(step, next, fair)
		})
	})
	for _, p := range g.states {
		m.wrongState(p, func(name string) { broken.add(name, finding[modelProject]{at: p}) })
	}
	stuck := g.stuck(func(p modelProject) bool {
		for _, b := range p.builds {
			if !b.over() && (!m.hung || b.is(previewd.BuildCanceling)) {
				return false
			}
		}
		return true
	})
	requireResult(t, want, g, broken, stuck)
}

// The design as it is breaks nothing and leaves no build unfinished for ever,
// whatever runners, network, users and clock do. Two rows ask more: when runners
// fall silent, the clock and the reaper end everything by themselves; when they
// hang and go on saying that they live, at least every cancel ends.
func TestBuildModelHolds(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	walked := map[edge]bool{}
	t.Run("walk", func(t *testing.T) {
		for name, test := range map[string]struct {
			model  buildModel
			states int
		}{
			"Supersede":         {buildModel{builds: 2, claims: 3, mail: true}, 120722},
			"Queue":             {buildModel{builds: 2, claims: 3, mail: true, queue: true}, 106913},
			"ThreeBuilds":       {buildModel{builds: 3, claims: 2, either: true}, 51736},
			"ThreeBuildsMail":   {buildModel{builds: 3, claims: 1, mail: true, either: true}, 56354},
			"RunnersFallSilent": {buildModel{builds: 2, claims: 2, mail: true, silent: true}, 29502},
			"RunnersHang":       {buildModel{builds: 2, claims: 2, mail: true, silent: true, hung: true}, 29502},
			// While one build runs at a time, no older one can finish after a newer:
			// the pointer's guard is a second line of defence. See OneRunsAndPointer.
			"PointerTakesTheLast": {buildModel{builds: 2, claims: 2, mail: true, queue: true, lastWins: true}, 25445},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test.model.walked = map[edge]bool{}
				test.model.require(t, result{states: test.states})
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(walked, test.model.walked)
			})
		}
	})
	require.ElementsMatch(t, legalEdges(), slices.Collect(maps.Keys(walked)), "the model takes every legal transition")
}

// Without any one of its protections the design breaks, and the model sees it.
func TestBuildModelSeesEveryProtection(t *testing.T) {
	t.Parallel()
	small := buildModel{builds: 2, claims: 2, mail: true}
	for name, test := range map[string]struct {
		remove func(m *buildModel)
		want   result
	}{
		"EpochCheck": {
			func(m *buildModel) { m.noEpochCheck = true },
			result{states: 33138, broken: map[string]int{lostClaim: 2590}},
		},
		"StateCheck": {
			func(m *buildModel) { m.noStateCheck = true },
			result{states: 45102, broken: map[string]int{oneVersion: 9350, wentOn: 10427, cancelBeaten: 13076}},
		},
		"Reaper": {
			func(m *buildModel) { m.noReaper = true },
			result{states: 14413, stuck: 7668},
		},
		"ReapingOfCanceling": {
			func(m *buildModel) { m.reaperIsBlind = true },
			result{states: 21416, stuck: 6312},
		},
		"OneRuns": {
			func(m *buildModel) { m.sideBySide, m.queue, m.mail = true, true, false },
			result{states: 7900, broken: map[string]int{twoRun: 2520, twoWait: 243, olderWaits: 774}},
		},
		"OneRunsAndPointer": {
			func(m *buildModel) { m.sideBySide, m.queue, m.mail, m.lastWins = true, true, false, true },
			result{states: 7907, broken: map[string]int{twoRun: 2520, twoWait: 243, olderWaits: 774, notNewest: 7, pointerBack: 24}},
		},
		"NewestWaits": {
			func(m *buildModel) { m.noNewer, m.queue = true, true },
			result{states: 56658, broken: map[string]int{twoWait: 3042, olderWaits: 9012}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := small
			m.walked = map[edge]bool{}
			test.remove(&m)
			m.require(t, test.want)
			require.True(t, len(test.want.broken) > 0 || test.want.stuck > 0, "a variant that breaks nothing proves nothing")
		})
	}
}
