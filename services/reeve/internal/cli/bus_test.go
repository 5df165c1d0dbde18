package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/services/registry/api"
)

func (f *fake) ListStreams(context.Context, api.ListStreamsRequestObject) (api.ListStreamsResponseObject, error) {
	return api.ListStreams200JSONResponse{{Stream: "orders", Length: 12}, {Stream: "payments", Length: 0}}, nil
}

func (f *fake) InspectStream(_ context.Context, r api.InspectStreamRequestObject) (api.InspectStreamResponseObject, error) {
	if r.Stream != "orders" {
		return api.InspectStreamdefaultApplicationProblemPlusJSONResponse{Body: problem(404, "not_found"), StatusCode: 404}, nil
	}
	key := "17"
	list := api.InspectStream200JSONResponse{}
	for i := range *r.Params.Limit {
		list = append(list, api.StreamRecord{Id: "0-" + number(i), Offset: int64(i), Key: &key, Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Data: json.RawMessage(`{"task_id":"e-1","content":{"id":17},"correlation_id":"c-1"}`)})
	}
	return list, nil
}

func (f *fake) ListGroups(_ context.Context, r api.ListGroupsRequestObject) (api.ListGroupsResponseObject, error) {
	return api.ListGroups200JSONResponse{Items: []api.Group{{Name: "reeve." + r.Params.Stream + ".hello", Agent: "hello", Stream: r.Params.Stream, State: "Stable",
		Consumers: 1, Pending: 2, Position: map[string]int64{"0": 7, "1": 3}}}}, nil
}

func (f *fake) GetBusStats(context.Context, api.GetBusStatsRequestObject) (api.GetBusStatsResponseObject, error) {
	var s api.GetBusStats200JSONResponse
	s.KafkaInfo.Brokers = 3
	s.Snapshot.Timestamp = 1.7e9
	s.Snapshot.Topics = map[string]api.TopicStats{"orders": {Length: 12, DlqTotal: 4, Groups: []api.GroupStats{
		{Name: "reeve.orders.hello", Agent: "hello", State: "Stable", Consumers: 1, Pending: 2, Dlq: 4, LastDeliveredId: "0-6"},
		{Name: "reeve.orders.audit", Agent: "audit", State: "Empty", Pending: 5}}}}
	return s, nil
}

func (f *fake) ListDeadLetters(_ context.Context, r api.ListDeadLettersRequestObject) (api.ListDeadLettersResponseObject, error) {
	return api.ListDeadLetters200JSONResponse{Items: []api.DeadLetter{{Origin: r.Topic + "/0/3", Topic: r.Topic, Name: r.Name, ErrorClass: "permanent",
		ErrorMessage: "no\x1b[31m luck", Fingerprint: "f00", Attempts: 1}}}, nil
}

func (f *fake) GetStorageHealth(context.Context, api.GetStorageHealthRequestObject) (api.GetStorageHealthResponseObject, error) {
	if f.health == "degraded" {
		return api.GetStorageHealth503JSONResponse{Status: "unhealthy", Detail: "no answer", Backend: "postgres"}, nil
	}
	return api.GetStorageHealth200JSONResponse{Status: "healthy", Backend: "postgres", Connected: true, AgentsCount: 3, ResultsCount: 40, MetricsCount: 5, LatencyMs: 1.25}, nil
}

func (f *fake) ClearAgents(context.Context, api.ClearAgentsRequestObject) (api.ClearAgentsResponseObject, error) {
	f.cleared = append(f.cleared, "agents")
	return api.ClearAgents200JSONResponse{Status: "cleared", AgentsDeleted: 3}, nil
}

func (f *fake) ClearResults(context.Context, api.ClearResultsRequestObject) (api.ClearResultsResponseObject, error) {
	f.cleared = append(f.cleared, "results")
	return api.ClearResults200JSONResponse{Status: "cleared", ResultsDeleted: 40}, nil
}

func (f *fake) ClearMetrics(context.Context, api.ClearMetricsRequestObject) (api.ClearMetricsResponseObject, error) {
	f.cleared = append(f.cleared, "metrics")
	return api.ClearMetrics200JSONResponse{Status: "cleared", MetricsDeleted: 5}, nil
}

func TestWhatStandsOnKafka(t *testing.T) {
	for line, want := range map[string]result{
		"bus streams":                           {Done, "orders     12\n", ""},
		"bus streams -o jsonl":                  {Done, `{"length":12,"stream":"orders"}` + "\n", ""},
		"bus inspect orders":                    {Done, `0-0   2026-01-02T03:04:05.000Z   17    e-1     {"id":17}`, ""},
		"bus inspect --stream orders":           {Done, "0-9 ", ""},
		"bus inspect orders -o wide":            {Done, "c-1", ""},
		"bus inspect orders --limit 2 -o jsonl": {Done, `"id":"0-1"`, ""},
		"bus inspect":                           {Usage, "", "name the topic: reeve bus inspect TOPIC, or --stream TOPIC"},
		"bus inspect a --stream b":              {Usage, "", "name the topic once"},
		"bus inspect a b":                       {Usage, "", "one topic at most"},
		"bus inspect order":                     {NotFound, "", "did you mean orders?"},
		"bus inspect nothing-like-it":           {NotFound, "", "see `reeve bus streams`"},
		"bus groups orders":                     {Done, "reeve.orders.hello   hello   Stable   1           2         0:7 1:3\n", ""},
		"bus groups --stream orders -o json":    {Done, `"pending": 2`, ""},
		"bus dlq --topic t":                     {Done, "t/0/3    a       permanent   1          -             -     no [31m luck\n", ""},
		"bus stats":                             {Done, "orders   12       4              2        7\n", ""},
		"bus stats -o wide":                     {Done, "orders   hello   Stable   1           2         4              0-6\n", ""},
		"bus stats -o jsonl":                    {Done, `"brokers":3`, ""},
		"storage health":                        {Done, "Results:           40\n", ""},
	} {
		got := newFake().reeve(t, "", strings.Fields(line)...)
		if lines := strings.ReplaceAll(got.out, " \n", "\n"); got.code != want.code || !strings.Contains(lines, want.out) || !strings.Contains(got.err, want.err) || want.err == "" && got.err != "" {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestClearingNamesTheCountAndAsks(t *testing.T) {
	for line, want := range map[string]struct {
		names, says, cleared string
	}{
		"storage clear-agents":  {"deletes all 3 agents", "3 agents are deleted\n", "agents"},
		"storage clear-results": {"deletes all 40 stored results", "40 results are deleted\n", "results"},
		"storage clear-metrics": {"deletes 5 rows of counters", "5 rows of counters are deleted\n", "metrics"},
	} {
		args := strings.Fields(line)
		f := newFake()
		if got := f.reeve(t, "", args...); got.code != Usage || !strings.Contains(got.err, want.names) || !strings.Contains(got.err, "say --yes") || len(f.cleared) > 0 {
			t.Errorf("%s with nobody to ask: %+v", line, got)
		}
		if got := f.on(t, System{In: strings.NewReader("no\n"), Terminal: true}, args...); got.code != Failed || len(f.cleared) > 0 {
			t.Errorf("%s with no: %+v", line, got)
		}
		if got := f.on(t, System{In: strings.NewReader("yes\n"), Terminal: true}, args...); got.code != Done || got.out != want.says || strings.Join(f.cleared, " ") != want.cleared {
			t.Errorf("%s with yes: %+v, %q", line, got, f.cleared)
		}
		if got := f.reeve(t, "", append(args, "--yes")...); got.code != Done || len(f.cleared) != 2 {
			t.Errorf("%s --yes: %+v", line, got)
		}
	}
}

func TestWithoutADatabaseNothingIsCleared(t *testing.T) {
	f := newFake()
	f.health = "degraded"
	if got := f.reeve(t, "", "storage", "health"); got.code != Failed || !strings.Contains(got.out, "no answer") {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "storage", "clear-agents"); got.code != Unreachable || !strings.Contains(got.err, "Postgres doesn't answer") || len(f.cleared) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestDeletingATopicsAgentsNamesTheCount(t *testing.T) {
	f := twoAgents()
	a := f.agents["t/a"]
	lag := int64(4)
	a.Waiting, a.Running, a.Lag = 2, 1, &lag
	f.agents["t/a"] = a
	got := f.reeve(t, "", "agent", "delete-topic", "--topic", "t", "--cleanup", "--delete-dlq")
	want := "deleting 2 agents of t discards 3 waiting tasks and their places in the topic (4 events they haven't read yet) and 3 dead letters for ever"
	if got.code != Usage || !strings.Contains(got.err, want) {
		t.Errorf("%+v", got)
	}
	for line, want := range map[string]string{
		"agent delete-topic --topic t --delete-dlq --dry-run": "2 agents of t would be deleted, their group stays, and 3 dead letters would go\n",
		"agent delete t/a --cleanup --dry-run":                "t/a would be deleted, its dead letters stay, and 3 waiting tasks and its place in the topic (4 events it hasn't read yet) would go\n",
		"agent delete t/a --dry-run":                          "t/a would be deleted, its group and dead letters stay\n",
	} {
		if got := f.reeve(t, "", strings.Fields(line)...); got.code != 0 || got.out != want || len(f.deleted) > 0 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
