package rest

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
)

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
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	p := r.Params
	records, next, err := s.letters(ctx, r.Topic, r.Name, letterQuery{p.PageSize, p.PageToken, p.Since, p.ErrorClass}, func(rec *kgo.Record) bool {
		return p.Fingerprint == "" || route.Header(rec, task.HeaderErrorFingerprint) == p.Fingerprint
	})
	if err != nil {
		return nil, err
	}
	out := api.ListDeadLetters200JSONResponse{Items: make([]api.DeadLetter, len(records)), NextPageToken: next}
	for i, rec := range records {
		out.Items[i] = deadLetterOf(rec, r.Topic, r.Name)
	}
	return out, nil
}

// CountDeadLetters counts an agent's open dead letters by fingerprint.
func (s *Server) CountDeadLetters(ctx context.Context, r api.CountDeadLettersRequestObject) (api.CountDeadLettersResponseObject, error) {
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	cause := func(rec *kgo.Record) string { return route.Header(rec, task.HeaderErrorFingerprint) }
	all, total, complete, err := s.failures(ctx, r.Topic, r.Name, cause, route.Redrives)
	if err != nil {
		return nil, err
	}
	out := api.CountDeadLetters200JSONResponse{Items: make([]api.DeadLetterGroup, len(all)), Total: total, Complete: complete}
	for i, f := range all {
		out.Items[i] = api.DeadLetterGroup{Fingerprint: f.cause, ErrorClass: f.class, ErrorMessage: f.message, Count: f.count, Guarded: f.guarded, FirstFailedAt: f.first, LastFailedAt: f.last}
	}
	return out, nil
}

// GetDeadLetter gives one open dead letter with all its headers.
func (s *Server) GetDeadLetter(ctx context.Context, r api.GetDeadLetterRequestObject) (api.GetDeadLetterResponseObject, error) {
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	id := origin(r.Topic, r.Partition, r.Offset)
	one := command.Command{Verb: command.Purge, Topic: r.Topic, Agent: r.Name, Task: id, Dead: &command.Dead{}}
	found, err := s.letter(ctx, r.Topic, r.Name, func(rec *kgo.Record) bool { return deadletter.Choose(one, rec) == deadletter.Take })
	if err == nil && found == nil {
		err = s.noDeadLetter(r.Topic, r.Name, id)
	}
	if err != nil {
		return nil, err
	}
	return api.GetDeadLetter200JSONResponse(letterDetail(found, r.Topic, r.Name)), nil
}

func (s *Server) noDeadLetter(topic, name, id string) error {
	return notFound(fmt.Sprintf("%s/%s has no open dead letter of the event %s", topic, name, id),
		"see GET /v1/dlq/"+topic+"/"+name+" for those there are; one that was redriven or purged is open no more")
}

func letterDetail(rec *kgo.Record, topic, name string) api.DeadLetterDetail {
	d := deadLetterOf(rec, topic, name)
	return api.DeadLetterDetail{Origin: d.Origin, Topic: d.Topic, Name: d.Name, ErrorClass: d.ErrorClass, ErrorMessage: d.ErrorMessage, Fingerprint: d.Fingerprint,
		Attempts: d.Attempts, Redrives: d.Redrives, FirstFailedAt: d.FirstFailedAt, LastFailedAt: d.LastFailedAt, Key: d.Key, Value: d.Value,
		KeyEncoding: api.DeadLetterDetailKeyEncoding(d.KeyEncoding), ValueEncoding: api.DeadLetterDetailValueEncoding(d.ValueEncoding), Partition: d.Partition, Offset: d.Offset,
		Headers: headersOf(rec)}
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
