package history

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// A packed attempt is found by its event's id through a Bloom filter over each thousand of numbers. An index row an attempt
// would cost ten times what the attempt does; this is 12 bits, and a search reads at most the 12 MB that all filters are.
// Of filters that don't hold an id, one in 300 says that it may: its packs are read in vain.
const (
	perPage    = 1_000 // a divisor of perTable, so that pages go with tables
	filterBits = 12 * perPage
	probes     = 8
	pagesRead  = 200   // of those that may hold an id, the newest
	mostTasks  = 1_000 // of one event
)

// filter is a Bloom filter of event ids.
type filter []byte

// eventHash hashes an event's id. It is stored, in what it sets, and never changes: FNV-1a, then mixed as MurmurHash3 does.
func eventHash(id []byte) uint64 {
	x := uint64(14695981039346656037)
	for _, c := range id {
		x = (x ^ uint64(c)) * 1099511628211
	}
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// places are the bits that an id sets.
func places(hash uint64) [probes]int {
	var out [probes]int
	at, step := hash&0xffffffff, hash>>32|1
	for i := range out {
		out[i] = int((at + uint64(i)*step) % filterBits)
	}
	return out
}

// add sets an id's bits, as Postgres's get_bit counts them.
func (f filter) add(hash uint64) {
	for _, at := range places(hash) {
		f[at/8] |= 1 << (at % 8)
	}
}

// pages makes the filters of packs whose attempts are numbered from id on.
func pages(packs []*builder, id int64) map[int64]filter {
	out := map[int64]filter{}
	for _, b := range packs {
		for _, hash := range b.events {
			page := id / perPage
			if out[page] == nil {
				out[page] = make(filter, filterBits/8)
			}
			out[page].add(hash)
			id++
		}
	}
	return out
}

// storePages adds to the filters that are there.
func storePages(ctx context.Context, tx *sqlx.Tx, add map[int64]filter) error {
	numbers := slices.Sorted(maps.Keys(add))
	var there []struct {
		Number int64
		Filter []byte
	}
	if err := tx.SelectContext(ctx, &there, `SELECT number, filter FROM event_pages WHERE number = ANY($1)`, pq.Array(numbers)); err != nil {
		return fmt.Errorf("read filters of events: %w", err)
	}
	for _, page := range there {
		for i, b := range page.Filter {
			add[page.Number][i] |= b
		}
	}
	var filters []byte
	for _, n := range numbers {
		filters = append(filters, add[n]...)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO event_pages (number, filter)
		SELECT n.number, substring($2::bytea FROM ((n.place - 1) * $3::int + 1)::int FOR $3::int) FROM unnest($1::bigint[]) WITH ORDINALITY AS n (number, place)
		ON CONFLICT (number) DO UPDATE SET filter = excluded.filter`, pq.Array(numbers), filters, filterBits/8)
	if err != nil {
		return fmt.Errorf("store filters of events: %w", err)
	}
	return nil
}

// ByEvent gives the tasks of an event, by their latest attempts, the newest first, at most 1,000: one an agent, and more
// where several events have the id. Of a longer id only the first 256 bytes are looked at.
func (s *Store) ByEvent(ctx context.Context, id string) ([]Attempt, error) {
	stored := cut([]byte(id)) // where a character is cut in two, it is no UTF-8 any more
	text := asText(stored)
	var found []Attempt
	err := s.DB.SelectContext(ctx, &found, `SELECT `+selected+` FROM attempts a JOIN sources s ON s.id = a.source_id
		WHERE a.event_id = $1 ORDER BY a.id DESC LIMIT $2`, text, mostTasks)
	if err != nil {
		return nil, fmt.Errorf("look for event %s: %w", id, err)
	}
	packed, err := s.packedByEvent(ctx, stored)
	if err != nil {
		return nil, err
	}
	return latestOfEach(append(found, packed...)), nil
}

func (s *Store) packedByEvent(ctx context.Context, id []byte) ([]Attempt, error) {
	conditions := make([]string, 0, probes)
	for _, at := range places(eventHash(id)) {
		conditions = append(conditions, fmt.Sprintf("get_bit(filter, %d) = 1", at))
	}
	var numbers []int64
	if err := s.DB.SelectContext(ctx, &numbers, `SELECT number FROM event_pages WHERE `+strings.Join(conditions, " AND ")+` ORDER BY number DESC LIMIT $1`, pagesRead); err != nil {
		return nil, fmt.Errorf("look for event %s: %w", id, err)
	}
	var found []Attempt
	for _, n := range numbers {
		if len(found) >= mostTasks {
			break
		}
		var packs []pack
		err := s.DB.SelectContext(ctx, &packs, `SELECT p.id, s.topic, s.name, p.source_id, p.partition, p.settled_ms, p.data FROM packs p JOIN sources s ON s.id = p.source_id
			WHERE p.id >= coalesce((SELECT max(id) FROM packs WHERE id <= $1), $1) AND p.id < $2 ORDER BY p.id`, n*perPage, (n+1)*perPage)
		if err != nil {
			return nil, fmt.Errorf("look for event %s: %w", id, err)
		}
		for i := range packs {
			all, err := packs[i].attempts()
			if err != nil {
				return nil, err
			}
			for _, a := range all {
				if a.EventID == clean(string(id)) {
					found = append(found, a)
				}
			}
		}
	}
	return found, nil
}

// latestOfEach keeps the latest attempt of each task, the newest first.
func latestOfEach(attempts []Attempt) []Attempt {
	slices.SortFunc(attempts, func(a, b Attempt) int { return inRounds(b, a) })
	seen := map[taskKey]bool{}
	out := slices.DeleteFunc(attempts, func(a Attempt) bool {
		key := taskKey{a.SourceID, a.Partition, a.Offset}
		was := seen[key]
		seen[key] = true
		return was
	})
	slices.SortFunc(out, func(a, b Attempt) int { return cmp.Compare(b.ID, a.ID) })
	return out[:min(len(out), mostTasks)]
}
