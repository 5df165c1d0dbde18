package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/filter"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// registry is as much of one as a Runner needs: it registers agents, moves them through their phases, and writes the
// control topic.
type registry struct {
	names      topics.Names
	client     *kgo.Client
	dispatcher *dispatcher
	server     *httptest.Server

	mu     sync.Mutex
	agents map[string]*spec.Agent // by topic/name
}

func startRegistry(names topics.Names, cl *kgo.Client, d *dispatcher) *registry {
	g := &registry{names: names, client: cl, dispatcher: d, agents: map[string]*spec.Agent{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/agents", g.register)
	mux.HandleFunc("GET /v1/agents", g.list)
	mux.HandleFunc("GET /v1/agents/{topic}/{name}", g.get)
	mux.HandleFunc("DELETE /v1/agents/{topic}/{name}", g.delete)
	mux.HandleFunc("DELETE /v1/topics/{topic}/agents", g.deleteTopic)
	mux.HandleFunc("POST /v1/agents/{topic}/{name}/unsubscribe", g.unsubscribe)
	mux.HandleFunc("POST /v1/agents/{topic}/{name}/resume", g.resume)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotImplemented, "not_in_the_test_kit", fmt.Sprintf("the registry of agenttest has no %s %s", r.Method, r.URL.Path))
	})
	g.server = httptest.NewServer(mux)
	return g
}

// change moves an agent to what set makes of it, and tells everybody.
func (g *registry) change(ctx context.Context, a *spec.Agent, set func(b *spec.Agent)) (*spec.Agent, error) {
	b := *a
	set(&b)
	b.Generation++
	b.UpdatedAt = time.Now().UTC()
	value, err := json.Marshal(b)
	if err == nil {
		err = g.dispatcher.changed(ctx, &b)
	}
	if err == nil {
		err = g.client.ProduceSync(ctx, &kgo.Record{Topic: g.names.Control(), Key: []byte(b.Key()), Value: value}).FirstErr()
	}
	if err != nil {
		return nil, err
	}
	g.agents[b.Ref()] = &b
	return &b, nil
}

func (g *registry) register(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	wanted, faults := spec.ParseEntry(raw)
	if len(faults) == 0 {
		faults = wanted.Check(topics.DefaultTiers())
	}
	if err := filter.Check(wanted.Filter); err != nil {
		faults = append(faults, spec.Fault{Field: "filter", Message: err.Error()})
	}
	if len(faults) > 0 {
		refuse(w, http.StatusUnprocessableEntity, "invalid_agent", faults[0].Field+": "+faults[0].Message)
		return
	}
	if wanted.Config.Ordering == spec.OrderingStrict {
		wanted.Config.RetryDelays = []string{"1ms"} // its worker waits itself
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.agents[wanted.Ref()]
	held := before != nil && before.Phase == spec.Paused && before.Hold
	now := time.Now().UTC()
	wanted.CreatedAt, wanted.RegisteredAt, wanted.Phase = now, now, spec.Active
	if before != nil {
		wanted.Generation, wanted.CreatedAt = before.Generation, before.CreatedAt
	}
	if held {
		wanted.Phase, wanted.Hold = spec.Paused, true
	}
	a, err := g.change(r.Context(), wanted, func(*spec.Agent) {})
	if err != nil {
		refuse(w, http.StatusInternalServerError, "internal", err.Error())
		return
	}
	action := client.AgentChangeActionUpdate
	if before == nil {
		action = client.AgentChangeActionCreate
	}
	answer(w, map[string]any{"action": action, "topic": a.Topic, "name": a.Name, "dry_run": false, "held": held, "agent": a})
}

// known gives an agent that isn't deleted, or answers that there is none. The lock is held.
func (g *registry) known(w http.ResponseWriter, r *http.Request) *spec.Agent {
	ref := r.PathValue("topic") + "/" + r.PathValue("name")
	a := g.agents[ref]
	if a == nil || a.Phase == spec.Terminated {
		refuse(w, http.StatusNotFound, "agent_not_found", "there is no agent "+ref)
		return nil
	}
	return a
}

func (g *registry) get(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.known(w, r); a != nil {
		answer(w, a)
	}
}

func (g *registry) list(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	answer(w, map[string]any{"items": g.of(r.URL.Query().Get("topic"))})
}

// of lists the agents of a topic that aren't deleted; "" is all topics. The lock is held.
func (g *registry) of(topic string) []*spec.Agent {
	all := []*spec.Agent{}
	for _, a := range g.agents {
		if a.Phase != spec.Terminated && (topic == "" || a.Topic == topic) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(x, y *spec.Agent) int { return strings.Compare(x.Ref(), y.Ref()) })
	return all
}

func (g *registry) unsubscribe(w http.ResponseWriter, r *http.Request) {
	var body struct{ Hold bool }
	_ = json.NewDecoder(r.Body).Decode(&body) // without a body: no hold
	g.move(w, r, func(a *spec.Agent) bool { return a.Phase != spec.Paused || body.Hold && !a.Hold }, func(b *spec.Agent) { b.Phase, b.Hold = spec.Paused, body.Hold })
}

func (g *registry) resume(w http.ResponseWriter, r *http.Request) {
	g.move(w, r, func(a *spec.Agent) bool { return a.Phase != spec.Active }, func(b *spec.Agent) { b.Phase, b.Hold = spec.Active, false })
}

func (g *registry) move(w http.ResponseWriter, r *http.Request, differs func(*spec.Agent) bool, set func(*spec.Agent)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.known(w, r)
	if a == nil {
		return
	}
	changed := differs(a)
	if changed {
		var err error
		if a, err = g.change(r.Context(), a, set); err != nil {
			refuse(w, http.StatusInternalServerError, "internal", err.Error())
			return
		}
	}
	answer(w, map[string]any{"changed": changed, "phase": a.Phase, "agent": a})
}

func (g *registry) delete(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.known(w, r); a != nil {
		g.answerDeletions(w, r, []*spec.Agent{a}, func(ds []map[string]any) any { return ds[0] })
	}
}

func (g *registry) deleteTopic(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	topic := r.PathValue("topic")
	g.answerDeletions(w, r, g.of(topic), func(ds []map[string]any) any {
		return map[string]any{"topic": topic, "agents_deleted": len(ds), "items": ds}
	})
}

func (g *registry) answerDeletions(w http.ResponseWriter, r *http.Request, agents []*spec.Agent, body func([]map[string]any) any) {
	group, dlq := r.URL.Query().Get("delete_group") == "true", r.URL.Query().Get("delete_dlq") == "true"
	deletions := []map[string]any{}
	for _, a := range agents {
		_, err := g.change(r.Context(), a, func(b *spec.Agent) {
			now := time.Now().UTC()
			b.Phase, b.Hold, b.TerminatedAt, b.CleanUp, b.DeleteDLQ = spec.Terminated, false, &now, group, dlq
		})
		if err != nil {
			refuse(w, http.StatusInternalServerError, "internal", err.Error())
			return
		}
		deletions = append(deletions, map[string]any{"status": "deleted", "topic": a.Topic, "agent": a.Name, "changed": true,
			"cleanup": map[string]any{"storage_deleted": true, "consumer_group_deleted": group, "dlq_deleted": dlq, "discards": 0}})
	}
	answer(w, body(deletions))
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // nobody to tell
}

func refuse(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(client.Problem{Status: status, Code: code, Title: http.StatusText(status), Detail: detail}) // nobody to tell
}
