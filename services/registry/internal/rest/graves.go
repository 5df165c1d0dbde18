package rest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
)

// What looks at agents' dead letters and at webhooks that were given up have in common: both stand on a topic of their own,
// whose group says which of them are open. Webhooks are the agent command.Webhooks of no topic.

// maxCounted is how many are counted at once.
const maxCounted = 200_000

// letterQuery is what every list of them can be asked for.
type letterQuery struct {
	pageSize     *int
	pageToken    string
	since, class string
}

// letters gives a page of open ones that are meant, and the token of the next.
func (s *Server) letters(ctx context.Context, topic, name string, q letterQuery, meant func(*kgo.Record) bool) ([]*kgo.Record, string, error) {
	limit, err := pageSize(q.pageSize)
	if err != nil {
		return nil, "", err
	}
	var from bus.Place
	if err := readToken(q.pageToken, &from); err != nil {
		return nil, "", err
	}
	after, err := since(q.since, s.Now())
	if err != nil {
		return nil, "", err
	}
	records, next, err := s.Bus.DeadLetters(ctx, topic, name, from, limit, func(rec *kgo.Record) bool {
		return meant(rec) && (q.class == "" || route.Header(rec, task.HeaderErrorClass) == q.class) && !failedAt(rec).Before(after)
	})
	if err != nil {
		return nil, "", &Unreached{err}
	}
	if next == nil {
		return records, "", nil
	}
	return records, pageToken(next), nil
}

// failedAt is when one failed last; where it doesn't say, when it was written.
func failedAt(rec *kgo.Record) time.Time {
	if at := stamp(route.Header(rec, task.HeaderLastFailedAt)); at != nil {
		return *at
	}
	return rec.Timestamp
}

// letter gives the open one that is meant, or nil.
func (s *Server) letter(ctx context.Context, topic, name string, meant func(*kgo.Record) bool) (found *kgo.Record, err error) {
	g, err := s.Bus.Graves(ctx, topic, name)
	if err != nil {
		return nil, &Unreached{err}
	}
	looking, enough := context.WithCancel(ctx)
	defer enough()
	_, err = s.Bus.EachDead(looking, g, maxScanned, func(rec *kgo.Record) {
		if found == nil && meant(rec) {
			found = rec
			enough()
		}
	})
	if found == nil && err != nil {
		return nil, &Unreached{err}
	}
	return found, nil
}

// failure counts those that have failed alike.
type failure struct {
	cause, class, message string
	count, guarded        int64
	first, last           *time.Time
}

// failures counts the open ones by their cause, the most frequent first; complete says that these are all.
func (s *Server) failures(ctx context.Context, topic, name string, cause func(*kgo.Record) string, redrives func(*kgo.Record) int) (all []failure, total int64, complete bool, err error) {
	g, err := s.Bus.Graves(ctx, topic, name)
	if err != nil {
		return nil, 0, false, &Unreached{err}
	}
	found := map[string]failure{}
	complete, err = s.eachDead(ctx, countLimit, g, maxCounted, func(rec *kgo.Record) {
		total++
		f := found[cause(rec)]
		f.cause = cause(rec)
		f.add(rec, redrives(rec))
		found[f.cause] = f
	})
	all = slices.SortedFunc(maps.Values(found), func(a, b failure) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.cause, b.cause))
	})
	return all, total, complete, err
}

// add counts one; class and message are those of the last.
func (f *failure) add(rec *kgo.Record, redrives int) {
	f.count++
	if redrives >= deadletter.MaxRedrives {
		f.guarded++
	}
	first, last := stamp(route.Header(rec, task.HeaderFirstFailedAt)), stamp(route.Header(rec, task.HeaderLastFailedAt))
	if f.count == 1 || f.last == nil || last != nil && last.After(*f.last) {
		f.class, f.message, f.last = route.Header(rec, task.HeaderErrorClass), route.Header(rec, task.HeaderErrorMessage), last
	}
	if f.first == nil || first != nil && first.Before(*f.first) {
		f.first = first
	}
}

// headersOf gives all headers of a record, in their order.
func headersOf(rec *kgo.Record) []api.RecordHeader {
	out := make([]api.RecordHeader, len(rec.Headers))
	for i, h := range rec.Headers {
		out[i].Key = h.Key
		if value, encoding := textOrBase64[api.RecordHeaderEncoding](h.Value); value != nil {
			out[i].Value, out[i].Encoding = *value, encoding
		}
	}
	return out
}
