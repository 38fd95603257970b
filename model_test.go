package previewd_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A graph is every state that a model can reach. Models are small on purpose:
// what a test samples, a model walks completely, every interleaving of every
// fault included.
type graph[S comparable] struct {
	states []S
	from   []int32   // the state that each was first reached from
	by     []string  // the step that led from there
	fair   [][]int32 // the states that lead to each by a fair step
}

// A walker is told of every step out of a state. A step is fair if it happens
// sooner or later when nobody brings more bad luck: time passes, and what has
// begun goes on. Faults and what users do are not fair.
type walker[S comparable] func(step string, next S, fair bool)

// maxStates is far more than any model has. One that goes past it has lost its
// bounds, and would take the machine's memory with it.
const maxStates = 400_000

// explore walks breadth first, so that the way to a state is a shortest one.
// It stops beyond maxStates.
func explore[S comparable](start S, steps func(S, walker[S])) *graph[S] {
	g := &graph[S]{states: []S{start}, from: []int32{-1}, by: []string{"start"}, fair: [][]int32{nil}}
	seen := map[S]int32{start: 0}
	for i := 0; i < len(g.states) && len(g.states) <= maxStates; i++ {
		steps(g.states[i], func(step string, next S, fair bool) {
			j, known := seen[next]
			if !known {
				j = int32(len(g.states))
				seen[next] = j
				g.states, g.from, g.by = append(g.states, next), append(g.from, int32(i)), append(g.by, step)
				g.fair = append(g.fair, nil)
			}
			if fair {
				g.fair[j] = append(g.fair[j], int32(i))
			}
		})
	}
	return g
}

// stuck returns the states from which fair steps alone reach no state that is
// done: what is lost there is lost for good.
func (g *graph[S]) stuck(done func(S) bool) []S {
	saved := make([]bool, len(g.states))
	var queue []int32
	for i, s := range g.states {
		if done(s) {
			saved[i] = true
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range g.fair[i] {
			if !saved[j] {
				saved[j] = true
				queue = append(queue, j)
			}
		}
	}
	var list []S
	for i, s := range g.states {
		if !saved[i] {
			list = append(list, s)
		}
	}
	return list
}

// way tells how a state is reached, for the message of a test that fails.
func (g *graph[S]) way(state S) string {
	i := int32(slices.Index(g.states, state))
	var steps []string
	for j := i; j >= 0; j = g.from[j] {
		steps = append(steps, g.by[j])
	}
	slices.Reverse(steps)
	return fmt.Sprintf("%s\n\t%+v", strings.Join(steps, " > "), state)
}

// result is what the walk of a model comes to.
type result struct {
	states int
	stuck  int
	broken map[string]int // how often each invariant does not hold; nil if all do
}

// findings counts what breaks and remembers one way to each.
type findings[S comparable] struct {
	count map[string]int
	first map[string]finding[S]
}

// finding is where something breaks: in a state, or at a step out of it.
type finding[S comparable] struct {
	at   S
	step string
}

func (f *findings[S]) add(name string, at finding[S]) {
	if f.count == nil {
		f.count, f.first = map[string]int{}, map[string]finding[S]{}
	}
	if f.count[name]++; f.count[name] == 1 {
		f.first[name] = at
	}
}

// requireResult compares a walk with what is pinned. A count that moves means
// that the machine has changed: the ways in the message show what it can do now.
func requireResult[S comparable](t *testing.T, want result, g *graph[S], broken findings[S], stuck []S) {
	t.Helper()
	got := result{states: len(g.states), stuck: len(stuck), broken: broken.count}
	if reflect.DeepEqual(want, got) {
		return
	}
	if len(g.states) > maxStates {
		t.Errorf("This model has no end any more: it has walked %d states.", len(g.states))
	}
	var text strings.Builder
	fmt.Fprintf(&text, "What this model can reach has changed.\npinned: %#v\nnow:    %#v\n"+
		"If it was meant to, and nothing below is wrong, put the new numbers into the table.", want, got)
	for _, name := range slices.Sorted(maps.Keys(broken.first)) {
		where := broken.first[name]
		fmt.Fprintf(&text, "\n\n%s:\n%s", name, g.way(where.at))
		if where.step != "" {
			fmt.Fprintf(&text, "\n\t> %s", where.step)
		}
	}
	if len(stuck) > 0 {
		fmt.Fprintf(&text, "\n\nstuck:\n%s", g.way(stuck[0]))
	}
	t.Fatal(text.String())
}
