package rest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
)

// maxCounted is how many dead letters are counted by their fingerprint at once.
const maxCounted = 200_000

// ListDLQs lists dead-letter topics.
func (s *Server) ListDLQs(ctx context.Context, r api.ListDLQsRequestObject) (api.ListDLQsResponseObject, error) {
	rows, err := s.Agents.List(ctx, agents.Filter{Topic: r.Params.Topic, Deleted: true, Limit: 10_000})
	if err != nil {
		return nil, err
	}
	dlqs, err := s.Bus.DLQs(ctx, refs(rows))
	if err != nil {
		return nil, &Unreached{err}
	}
	out := api.ListDLQs200JSONResponse{Items: []api.DLQ{}}
	for _, row := range rows {
		if d, ok := dlqs[[2]string{row.Topic, row.Name}]; ok {
			out.Items = append(out.Items, api.DLQ{Topic: row.Topic, Name: row.Name, DlqTopic: d.Topic, Records: d.Records, Deleted: row.Phase == spec.Terminated})
		}
	}
	return out, nil
}

// ListDeadLetters lists an agent's open dead letters.
func (s *Server) ListDeadLetters(ctx context.Context, r api.ListDeadLettersRequestObject) (api.ListDeadLettersResponseObject, error) {
	limit, err := pageSize(r.Params.PageSize)
	if err != nil {
		return nil, err
	}
	var from bus.Place
	if err := readToken(r.Params.PageToken, &from); err != nil {
		return nil, err
	}
	after, err := since(r.Params.Since, s.Now())
	if err != nil {
		return nil, err
	}
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	records, next, err := s.Bus.DeadLetters(ctx, r.Topic, r.Name, from, limit, func(rec *kgo.Record) bool {
		return (r.Params.Fingerprint == "" || route.Header(rec, task.HeaderErrorFingerprint) == r.Params.Fingerprint) &&
			(r.Params.ErrorClass == "" || route.Header(rec, task.HeaderErrorClass) == r.Params.ErrorClass) &&
			!failedAt(rec).Before(after)
	})
	if err != nil {
		return nil, &Unreached{err}
	}
	out := api.ListDeadLetters200JSONResponse{Items: []api.DeadLetter{}}
	if next != nil {
		out.NextPageToken = pageToken(next)
	}
	for _, rec := range records {
		out.Items = append(out.Items, deadLetterOf(rec, r.Topic, r.Name))
	}
	return out, nil
}

// failedAt is when a dead letter failed last; where it doesn't say, when it was written.
func failedAt(rec *kgo.Record) time.Time {
	if at := stamp(route.Header(rec, task.HeaderLastFailedAt)); at != nil {
		return *at
	}
	return rec.Timestamp
}

// CountDeadLetters counts an agent's open dead letters by fingerprint.
func (s *Server) CountDeadLetters(ctx context.Context, r api.CountDeadLettersRequestObject) (api.CountDeadLettersResponseObject, error) {
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	g, err := s.Bus.Graves(ctx, r.Topic, r.Name)
	if err != nil {
		return nil, &Unreached{err}
	}
	found := map[string]api.DeadLetterGroup{}
	out := api.CountDeadLetters200JSONResponse{Items: []api.DeadLetterGroup{}}
	out.Complete, err = s.eachDead(ctx, countLimit, g, maxCounted, func(rec *kgo.Record) {
		out.Total++
		print := route.Header(rec, task.HeaderErrorFingerprint)
		found[print] = counted(found[print], rec)
	})
	if err != nil {
		return nil, err
	}
	out.Items = slices.AppendSeq(out.Items, maps.Values(found))
	slices.SortFunc(out.Items, func(a, b api.DeadLetterGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return out, nil
}

// counted adds a dead letter to those of its fingerprint.
func counted(g api.DeadLetterGroup, rec *kgo.Record) api.DeadLetterGroup {
	d := deadLetterOf(rec, "", "")
	g.Fingerprint, g.Count = d.Fingerprint, g.Count+1
	if d.Redrives >= deadletter.MaxRedrives {
		g.Guarded++
	}
	if g.Count == 1 || g.LastFailedAt == nil || d.LastFailedAt != nil && d.LastFailedAt.After(*g.LastFailedAt) {
		g.ErrorClass, g.ErrorMessage, g.LastFailedAt = d.ErrorClass, d.ErrorMessage, d.LastFailedAt
	}
	if g.FirstFailedAt == nil || d.FirstFailedAt != nil && d.FirstFailedAt.Before(*g.FirstFailedAt) {
		g.FirstFailedAt = d.FirstFailedAt
	}
	return g
}

// GetDeadLetter gives one open dead letter with all its headers.
func (s *Server) GetDeadLetter(ctx context.Context, r api.GetDeadLetterRequestObject) (api.GetDeadLetterResponseObject, error) {
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	g, err := s.Bus.Graves(ctx, r.Topic, r.Name)
	if err != nil {
		return nil, &Unreached{err}
	}
	id := origin(r.Topic, r.Partition, r.Offset)
	one := command.Command{Verb: command.Purge, Topic: r.Topic, Agent: r.Name, Task: id, Dead: &command.Dead{}}
	var found *kgo.Record
	looking, enough := context.WithCancel(ctx)
	defer enough()
	_, err = s.Bus.EachDead(looking, g, maxScanned, func(rec *kgo.Record) {
		if found == nil && deadletter.Choose(one, rec) == deadletter.Take {
			found = rec
			enough()
		}
	})
	if found == nil && err != nil {
		return nil, &Unreached{err}
	}
	if found == nil {
		return nil, s.noDeadLetter(r.Topic, r.Name, id)
	}
	return api.GetDeadLetter200JSONResponse(letterDetail(found, r.Topic, r.Name)), nil
}

func (s *Server) noDeadLetter(topic, name, id string) error {
	return notFound(fmt.Sprintf("%s/%s has no open dead letter of the event %s", topic, name, id),
		"see GET /v1/dlq/"+topic+"/"+name+" for those there are; one that was redriven or purged is open no more")
}

func letterDetail(rec *kgo.Record, topic, name string) api.DeadLetterDetail {
	d := deadLetterOf(rec, topic, name)
	out := api.DeadLetterDetail{Origin: d.Origin, Topic: d.Topic, Name: d.Name, ErrorClass: d.ErrorClass, ErrorMessage: d.ErrorMessage, Fingerprint: d.Fingerprint,
		Attempts: d.Attempts, Redrives: d.Redrives, FirstFailedAt: d.FirstFailedAt, LastFailedAt: d.LastFailedAt, Key: d.Key, Value: d.Value,
		KeyEncoding: api.DeadLetterDetailKeyEncoding(d.KeyEncoding), ValueEncoding: api.DeadLetterDetailValueEncoding(d.ValueEncoding), Partition: d.Partition, Offset: d.Offset}
	for _, h := range rec.Headers {
		value, encoding := textOrBase64[api.DeadLetterDetailHeadersEncoding](h.Value)
		one := struct {
			Encoding api.DeadLetterDetailHeadersEncoding `json:"encoding,omitempty,omitzero"`
			Key      string                              `json:"key"`
			Value    string                              `json:"value"`
		}{Key: h.Key, Encoding: encoding}
		if value != nil {
			one.Value = *value
		}
		out.Headers = append(out.Headers, one)
	}
	return out
}

// deadLetterOf reads a record of an agent's dead-letter topic.
func deadLetterOf(rec *kgo.Record, topic, name string) api.DeadLetter {
	headers := make(map[string]string, len(rec.Headers))
	for _, h := range rec.Headers {
		headers[h.Key] = string(h.Value)
	}
	d := api.DeadLetter{Topic: topic, Name: name, Origin: headers[task.HeaderOrigin], ErrorClass: headers[task.HeaderErrorClass], ErrorMessage: headers[task.HeaderErrorMessage],
		Fingerprint: headers[task.HeaderErrorFingerprint], Attempts: atoi(headers[task.HeaderAttempts]), Redrives: atoi(headers[task.HeaderRedrives]),
		FirstFailedAt: stamp(headers[task.HeaderFirstFailedAt]), LastFailedAt: stamp(headers[task.HeaderLastFailedAt]), Partition: rec.Partition, Offset: rec.Offset}
	if o, err := task.ParseOrigin(d.Origin); err == nil {
		d.Origin = o.ID()
	}
	d.Key, d.KeyEncoding = textOrBase64[api.DeadLetterKeyEncoding](rec.Key)
	d.Value, d.ValueEncoding = textOrBase64[api.DeadLetterValueEncoding](rec.Value)
	return d
}
