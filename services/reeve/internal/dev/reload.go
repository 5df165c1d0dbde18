package dev

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/sources"
)

// lookEvery is how often the agents' files are looked at. A change is acted on at the second look after it.
const lookEvery = 500 * time.Millisecond

// listEvery is how often the registry is asked which agents there are.
const listEvery = 2 * time.Second

// reloader restarts agents whose sources change, and applies the agents file again when that does.
type reloader struct {
	runner *runner
	client *client.ClientWithResponses
	file   sources.Settled
	dirs   map[string]*sources.Settled // by the agents' directories, absolute
	told   map[string]bool             // directories that are too large, which was said
	known  map[string][]client.Agent   // by directory, as the registry said last
	asked  time.Time                   // when that was
}

// newReloader looks at what there is; only what changes from here on counts.
func (r *runner) newReloader(ctx context.Context) (*reloader, error) {
	cl, err := r.client()
	if err != nil {
		return nil, err
	}
	l := &reloader{runner: r, client: cl, dirs: map[string]*sources.Settled{}, told: map[string]bool{}}
	l.look(ctx)
	return l, nil
}

// follow looks until the context ends.
func (l *reloader) follow(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.look(ctx)
	}
}

func (l *reloader) look(ctx context.Context) {
	l.lookAtFile(ctx)
	if time.Since(l.asked) >= listEvery {
		if agents, err := l.agents(ctx); err == nil { // the registry's own log says what it has; the next look asks again
			l.known, l.asked = agents, time.Now()
			maps.DeleteFunc(l.dirs, func(dir string, _ *sources.Settled) bool { return agents[dir] == nil })
		}
	}
	for dir, own := range l.known {
		if changed := l.lookAt(dir); len(changed) > 0 {
			l.restart(ctx, changed, own)
		}
	}
}

// lookAtFile applies the agents file when it has changed. A file with faults is told, and nothing follows from it.
func (l *reloader) lookAtFile(ctx context.Context) {
	r := l.runner
	if r.file == "" {
		return
	}
	info, err := os.Stat(r.file)
	if err != nil {
		return // between an editor's two steps, or gone: what is registered stays
	}
	if len(l.file.See(sources.File(r.file, info))) == 0 {
		return
	}
	agents, err := readAgents(r.settings)
	if err != nil {
		r.say("%s changed: %v", r.file, err)
		return
	}
	r.agents = agents
	r.say("%s changed: it is applied again", r.file)
	if err := r.apply(ctx); err != nil && ctx.Err() == nil {
		r.say("error: %v", err)
	}
	l.asked = time.Time{}
}

// agents are those that a supervisor runs or would run, by their directories.
func (l *reloader) agents(ctx context.Context) (map[string][]client.Agent, error) {
	all := map[string][]client.Agent{}
	size := 1000
	for token := ""; ; {
		answer, err := l.client.ListAgentsWithResponse(ctx, &client.ListAgentsParams{PageSize: &size, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, a := range answer.JSON200.Items {
			if a.Runtime != spec.SDK && (a.Phase == spec.Active || a.Phase == spec.Error) {
				dir := filepath.Join(l.runner.AgentsDir, a.Dir)
				all[dir] = append(all[dir], a)
			}
		}
		if token = answer.JSON200.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// lookAt gives the sources of a directory that have changed.
func (l *reloader) lookAt(dir string) []string {
	file, data := absolute(l.runner.file), absolute(l.runner.data)
	look, err := sources.Take(dir, file, data)
	if err != nil {
		if !l.told[dir] {
			l.told[dir] = true
			l.runner.say("changes in %s aren't followed, %v: after one, `reeve agent restart`", dir, err)
		}
		return nil
	}
	if l.dirs[dir] == nil {
		l.dirs[dir] = new(sources.Settled)
	}
	return l.dirs[dir].See(look)
}

// absolute is a path as a look has it, "" for none.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func (l *reloader) restart(ctx context.Context, changed []string, agents []client.Agent) {
	var refs []string
	for _, a := range agents {
		_, err := l.client.RestartAgentWithResponse(ctx, a.Topic, a.Name, nil)
		var problem *client.ProblemError
		switch {
		case err == nil:
			refs = append(refs, a.Topic+"/"+a.Name)
		case errors.As(err, &problem) && (problem.Status == http.StatusConflict || problem.Status == http.StatusNotFound):
			// paused or deleted since it was listed
		case ctx.Err() == nil:
			l.runner.say("restart %s/%s: %v", a.Topic, a.Name, err)
		}
	}
	if len(refs) == 0 {
		return
	}
	what := changed[0]
	if rel, err := filepath.Rel(l.runner.AgentsDir, what); err == nil {
		what = rel
	}
	if more := len(changed) - 1; more > 0 {
		what = fmt.Sprintf("%s and %d more", what, more)
	}
	l.runner.say("%s changed: restarted %s", what, strings.Join(refs, ", "))
}
