package main

import (
	"slices"
	"strings"
	"testing"
)

func TestNotRunningNamesWhatIsDownOrMissing(t *testing.T) {
	as := []agent{{Topic: "t", Name: "up"}, {Topic: "t", Name: "starting"}, {Topic: "t", Name: "broken"}, {Topic: "t", Name: "absent"}}
	list := `{"items":[{"topic":"t","name":"up","phase":"active","instances":1},{"topic":"t","name":"starting","phase":"active","instances":0},
		{"topic":"t","name":"broken","phase":"error","instances":0},{"topic":"t","name":"somebody-else","phase":"paused","instances":0}]}`
	got, err := notRunning([]byte(list), as)
	if want := []string{"t/absent (not registered)", "t/broken (error)", "t/starting (active)"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestFiguresOfTheRegistryAreCompared(t *testing.T) {
	got, err := readFigures([]byte(`{"items":[{"topic":"t","name":"a","received":3,"completed":2,"retried":1,"dead_lettered":1,"waiting":0}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]figures{"t/a": {Received: 3, Completed: 2, Retried: 1, DeadLettered: 1}}
	if ds := differ(got, want); len(ds) != 0 {
		t.Errorf("differences %q, want none", ds)
	}
	want["t/b"] = figures{Received: 1}
	if ds := differ(got, want); len(ds) != 1 || !strings.Contains(ds[0], "t/b") {
		t.Errorf("differences %q, want one about t/b", ds)
	}
}
