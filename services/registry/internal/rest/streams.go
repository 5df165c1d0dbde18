package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
)

const (
	maxStreams      = 10_000
	usualStreams    = 1_000
	maxLast         = 1_000
	usualLast       = 10
	maxAgentsLooked = 10_000
)

// limited is how many of something are asked for.
func limited(asked *int, usual, most int) (int, error) {
	if asked == nil {
		return usual, nil
	}
	if *asked < 1 || *asked > most {
		return 0, badRequest("invalid_request", fmt.Sprintf("give 1 to %d, or leave it out for %d", most, usual), "limit %d is out of range", *asked)
	}
	return *asked, nil
}

// named refuses a topic that is no name: an empty one would select all.
func named(topic string) error {
	if topic == "" {
		return badRequest("invalid_request", "name the topic", "the topic is empty")
	}
	return nil
}

// ListStreams lists user topics.
func (s *Server) ListStreams(ctx context.Context, r api.ListStreamsRequestObject) (api.ListStreamsResponseObject, error) {
	limit, err := limited(r.Params.Limit, usualStreams, maxStreams)
	if err != nil {
		return nil, err
	}
	streams, err := s.Bus.Streams(ctx, limit)
	if err != nil {
		return nil, &Unreached{err}
	}
	out := api.ListStreams200JSONResponse{}
	for _, one := range streams {
		out = append(out, api.Stream{Stream: one.Name, Length: one.Length})
	}
	return out, nil
}

// InspectStream lists the latest events of a topic.
func (s *Server) InspectStream(ctx context.Context, r api.InspectStreamRequestObject) (api.InspectStreamResponseObject, error) {
	found, err := s.inspect(ctx, r.Stream, r.Params.Limit)
	return api.InspectStream200JSONResponse(found), err
}

// InspectStreamByQuery is InspectStream with the topic as a parameter.
func (s *Server) InspectStreamByQuery(ctx context.Context, r api.InspectStreamByQueryRequestObject) (api.InspectStreamByQueryResponseObject, error) {
	found, err := s.inspect(ctx, r.Params.Stream, r.Params.Limit)
	return api.InspectStreamByQuery200JSONResponse(found), err
}

func (s *Server) inspect(ctx context.Context, topic string, asked *int) ([]api.StreamRecord, error) {
	limit, err := limited(asked, usualLast, maxLast)
	if err == nil {
		err = named(topic)
	}
	if err != nil {
		return nil, err
	}
	if s.Names.Reserved(topic) {
		return nil, badRequest("invalid_request", "name a topic of yours; dead letters are at /bus/dlq/{topic}, agents at /v1/agents", "%s is one of Reeve's own topics", topic)
	}
	records, ok, err := s.Bus.Latest(ctx, topic, limit)
	if err != nil {
		return nil, &Unreached{err}
	}
	if !ok {
		return nil, notFound("the topic "+topic+" does not exist", "see GET /bus/streams for those there are")
	}
	out := []api.StreamRecord{}
	for _, rec := range records {
		one := api.StreamRecord{Id: recordID(rec.Partition, rec.Offset), Data: message(rec, topic, "", 1), Partition: rec.Partition, Offset: rec.Offset, Timestamp: rec.Timestamp.UTC()}
		one.Key, one.KeyEncoding = textOrBase64[api.StreamRecordKeyEncoding](rec.Key)
		out = append(out, one)
	}
	return out, nil
}

func recordID(partition int32, offset int64) string {
	return itoa(partition) + "-" + strconv.FormatInt(offset, 10)
}

// message is an event as an agent is given it, or what it holds and why it can't be given. agent is "" where none has it.
func message(rec *kgo.Record, topic, agent string, attempt int) json.RawMessage {
	var fields map[string]json.RawMessage
	payload, err := event.AppendPayload(nil, rec, event.Params{Topic: topic, Agent: agent, Attempt: attempt})
	if err == nil {
		err = json.Unmarshal(payload, &fields)
	}
	if err != nil {
		return unreadableMessage(rec, err)
	}
	delete(fields, "processing_consumer")
	delete(fields, "variables")
	if agent == "" {
		delete(fields, "agent")
	}
	if out, err := json.Marshal(fields); err == nil {
		return out
	}
	return payload
}

func unreadableMessage(rec *kgo.Record, problem error) json.RawMessage {
	fields := struct {
		Content  *string `json:"content"`
		Encoding string  `json:"content_encoding,omitempty"`
		Error    string  `json:"error"`
	}{Error: problem.Error()}
	if fields.Content, fields.Encoding = textOrBase64[string](rec.Value); fields.Encoding == "utf-8" {
		fields.Encoding = ""
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return json.RawMessage(`{}`) // two texts, which always marshal
	}
	return out
}

// ListStreamGroups lists the agents' groups on a topic.
func (s *Server) ListStreamGroups(ctx context.Context, r api.ListStreamGroupsRequestObject) (api.ListStreamGroupsResponseObject, error) {
	found, err := s.streamGroups(ctx, r.Stream)
	return api.ListStreamGroups200JSONResponse(found), err
}

// ListStreamGroupsByQuery is ListStreamGroups with the topic as a parameter.
func (s *Server) ListStreamGroupsByQuery(ctx context.Context, r api.ListStreamGroupsByQueryRequestObject) (api.ListStreamGroupsByQueryResponseObject, error) {
	found, err := s.streamGroups(ctx, r.Params.Stream)
	return api.ListStreamGroupsByQuery200JSONResponse(found), err
}

func (s *Server) streamGroups(ctx context.Context, topic string) ([]api.StreamGroup, error) {
	if err := named(topic); err != nil {
		return nil, err
	}
	groups, err := s.groups(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := []api.StreamGroup{}
	for _, g := range groups {
		out = append(out, api.StreamGroup{Name: g.Name, Agent: g.agent, Consumers: g.Consumers, Pending: g.pending, LastDeliveredId: lastDelivered(g.Position), State: g.State})
	}
	return out, nil
}

// group is an agent's group with its lag.
type group struct {
	bus.Group
	topic, agent string
	pending      int64
}

// groups gives the groups of a topic's agents, or with "" of all. The lag is what the dispatchers say; where none does, it
// is counted.
func (s *Server) groups(ctx context.Context, topic string) ([]group, error) {
	rows, err := s.Agents.List(ctx, agents.Filter{Topic: topic, Limit: maxAgentsLooked})
	if err != nil {
		return nil, err
	}
	found, err := s.Bus.Groups(ctx, refs(rows))
	if err != nil {
		return nil, &Unreached{err}
	}
	live := s.Fleet.View(s.Now())
	out := make([]group, len(found))
	for i, g := range found {
		out[i] = group{Group: g, topic: rows[i].Topic, agent: rows[i].Name}
		if out[i].pending, err = s.pending(ctx, g, live.Agents[rows[i].Ref()]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func refs(rows []agents.Row) [][2]string {
	out := make([][2]string, len(rows))
	for i, row := range rows {
		out[i] = [2]string{row.Topic, row.Name}
	}
	return out
}

func (s *Server) pending(ctx context.Context, g bus.Group, live *fleet.Agent) (int64, error) {
	if live != nil && live.Lag != nil {
		return *live.Lag, nil
	}
	n, err := s.Bus.Count(ctx, g.Behind)
	if err != nil {
		return 0, &Unreached{err}
	}
	return n, nil
}

// lastDelivered writes the last event before each committed offset.
func lastDelivered(position map[int32]int64) string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(position)) {
		if position[p] > 0 {
			out = append(out, recordID(p, position[p]-1))
		}
	}
	return strings.Join(out, ",")
}

// ListTopicDLQ lists the latest dead letters of a topic's agents.
func (s *Server) ListTopicDLQ(ctx context.Context, r api.ListTopicDLQRequestObject) (api.ListTopicDLQResponseObject, error) {
	found, err := s.topicDLQ(ctx, r.Topic, r.Params.Limit)
	return api.ListTopicDLQ200JSONResponse(found), err
}

// ListTopicDLQByQuery is ListTopicDLQ with the topic as a parameter.
func (s *Server) ListTopicDLQByQuery(ctx context.Context, r api.ListTopicDLQByQueryRequestObject) (api.ListTopicDLQByQueryResponseObject, error) {
	found, err := s.topicDLQ(ctx, r.Params.Topic, r.Params.Limit)
	return api.ListTopicDLQByQuery200JSONResponse(found), err
}

func (s *Server) topicDLQ(ctx context.Context, topic string, asked *int) ([]api.TopicDeadLetter, error) {
	limit, err := limited(asked, usualLast, maxLast)
	if err == nil {
		err = named(topic)
	}
	if err != nil {
		return nil, err
	}
	rows, err := s.Agents.List(ctx, agents.Filter{Topic: topic, Deleted: true, Limit: maxAgentsLooked})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.Name
	}
	records, of, err := s.Bus.LatestDead(ctx, topic, names, limit)
	if err != nil {
		return nil, &Unreached{err}
	}
	out := []api.TopicDeadLetter{}
	for _, rec := range records {
		out = append(out, api.TopicDeadLetter{Id: recordID(rec.Partition, rec.Offset), Data: deadLetterData(rec, topic, of[rec.Topic])})
	}
	return out, nil
}

func deadLetterData(rec *kgo.Record, topic, agent string) api.DeadLetterData {
	d := deadLetterOf(rec, topic, agent)
	out := api.DeadLetterData{Topic: topic, Agent: agent, OriginalStream: topic, Error: d.ErrorMessage, ErrorClass: d.ErrorClass, Fingerprint: d.Fingerprint,
		Attempts: d.Attempts, RetryCount: max(0, d.Attempts-1), Redrives: d.Redrives, FailedAt: float64(rec.Timestamp.UnixMilli()) / 1000}
	if d.LastFailedAt != nil {
		out.FailedAt = float64(d.LastFailedAt.UnixMilli()) / 1000
	}
	original := *rec
	if o, err := task.ParseOrigin(d.Origin); err == nil {
		out.OriginalId = recordID(o.Partition, o.Offset)
		original.Partition, original.Offset = o.Partition, o.Offset
	}
	out.FailedMessage = message(&original, topic, agent, max(1, d.Attempts))
	return out
}

// GetBusStats gives the figures of every user topic.
func (s *Server) GetBusStats(ctx context.Context, _ api.GetBusStatsRequestObject) (api.GetBusStatsResponseObject, error) {
	streams, err := s.Bus.Streams(ctx, usualStreams)
	if err != nil {
		return nil, &Unreached{err}
	}
	groups, err := s.groups(ctx, "")
	if err != nil {
		return nil, err
	}
	rows, err := s.Agents.List(ctx, agents.Filter{Deleted: true, Limit: maxAgentsLooked})
	if err != nil {
		return nil, err
	}
	dlqs, err := s.Bus.DLQs(ctx, refs(rows))
	if err != nil {
		return nil, &Unreached{err}
	}
	brokers, err := s.Bus.Brokers(ctx)
	if err != nil {
		return nil, &Unreached{err}
	}
	out := api.GetBusStats200JSONResponse{}
	out.KafkaInfo.Brokers = brokers
	out.Snapshot.Timestamp = float64(s.Now().UnixMilli()) / 1000
	out.Snapshot.Topics = topicStats(streams, groups, dlqs)
	return out, nil
}

func topicStats(streams []bus.Stream, groups []group, dlqs map[[2]string]bus.DLQ) map[string]api.TopicStats {
	out := make(map[string]api.TopicStats, len(streams))
	for _, one := range streams {
		t := api.TopicStats{Length: one.Length, Groups: []api.GroupStats{}}
		for _, g := range groups {
			if g.topic == one.Name {
				t.Groups = append(t.Groups, api.GroupStats{Name: g.Name, Agent: g.agent, Consumers: g.Consumers, Pending: g.pending,
					LastDeliveredId: lastDelivered(g.Position), State: g.State, Dlq: dlqs[[2]string{g.topic, g.agent}].Records})
			}
		}
		for of, d := range dlqs {
			if of[0] == one.Name {
				t.DlqTotal += d.Records
			}
		}
		out[one.Name] = t
	}
	return out
}
