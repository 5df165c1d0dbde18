package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// pack is a row of packs.
type pack struct {
	ID          int64
	Topic, Name string
	SourceID    int32 `db:"source_id"`
	Partition   int32
	SettledMS   int64 `db:"settled_ms"`
	Data        []byte
}

func (p *pack) attempts() ([]Attempt, error) {
	out, err := unpack(p.ID, p.Topic, p.Partition, p.Data)
	for i := range out {
		out[i].Topic, out[i].Name, out[i].SourceID = p.Topic, p.Name, p.SourceID
	}
	return out, err
}

// packBatch packs the plain attempts of the batch and gives the places of the others.
func (p *Projector) packBatch() (packs []*builder, rest []int) {
	type place struct{ source, partition int32 }
	open := map[place]*builder{}
	var last *builder
	for i := range p.attempts {
		a := &p.attempts[i]
		if !a.plain() {
			rest = append(rest, i)
			continue
		}
		at := place{p.ids[i], a.partition}
		if last == nil || last.source != at.source || last.partition != at.partition {
			last = open[at]
		}
		if last == nil || !last.fits(a) {
			last = &builder{source: at.source, partition: at.partition}
			open[at] = last
			packs = append(packs, last)
		}
		last.add(a)
	}
	return packs, rest
}

// storePacks writes packs, numbering their attempts from id on, and gives the next number.
func storePacks(ctx context.Context, tx *sqlx.Tx, packs []*builder, id int64) (int64, error) {
	if len(packs) == 0 {
		return id, nil
	}
	if err := storePages(ctx, tx, pages(packs, id)); err != nil {
		return 0, err
	}
	var ids, firsts, lasts, settled, starts, lengths []int64
	var sources, partitions []int32
	var data []byte
	for _, b := range packs {
		ids, firsts, lasts, settled = append(ids, id), append(firsts, b.first), append(lasts, b.last), append(settled, b.settled)
		sources, partitions = append(sources, b.source), append(partitions, b.partition)
		starts, lengths, data = append(starts, int64(len(data))+1), append(lengths, int64(len(b.data))), append(data, b.data...)
		id += b.count
	}
	// The data is one value, since an array of them would be read character by character.
	_, err := tx.ExecContext(ctx, `INSERT INTO packs (id, source_id, partition, first_offset, last_offset, settled_ms, data)
		SELECT p.id, p.source_id, p.partition, p.first_offset, p.last_offset, p.settled_ms, substring($9::bytea FROM p.start FOR p.length)
		FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::int[], $8::int[])
			AS p (id, source_id, partition, first_offset, last_offset, settled_ms, start, length)`,
		pq.Array(ids), pq.Array(sources), pq.Array(partitions), pq.Array(firsts), pq.Array(lasts), pq.Array(settled), pq.Array(starts), pq.Array(lengths), data)
	if err != nil {
		return 0, fmt.Errorf("store packs: %w", err)
	}
	return id, nil
}

// packedTask finds the packed attempts of tasks with a partition and an offset, of some sources.
func packedTask(ctx context.Context, db sqlx.QueryerContext, sources []int32, partition int32, offset int64) ([]Attempt, error) {
	var packs []pack
	err := sqlx.SelectContext(ctx, db, &packs, `SELECT p.id, s.topic, s.name, p.source_id, p.partition, p.settled_ms, p.data FROM packs p JOIN sources s ON s.id = p.source_id
		WHERE p.source_id = ANY($1) AND p.partition = $2 AND p.last_offset >= $3 AND p.last_offset < $3 + $4 AND p.first_offset <= $3`, pq.Array(sources), partition, offset, span)
	if err != nil {
		return nil, fmt.Errorf("look into packs: %w", err)
	}
	var out []Attempt
	for i := range packs {
		all, err := packs[i].attempts()
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			if a.Offset == offset {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// packsAtOnce is how many packs a list looks into at a time.
const packsAtOnce = 16

// packedTasks lists packed attempts, the latest first, as a filter that asks for nothing rare says.
func (s *Store) packedTasks(ctx context.Context, f Filter) ([]Attempt, error) {
	below := f.Below
	if below == 0 {
		below = 1 << 62
	}
	var out []Attempt
	for len(out) < f.Limit {
		var packs []pack
		err := s.DB.SelectContext(ctx, &packs, `SELECT p.id, s.topic, s.name, p.source_id, p.partition, p.settled_ms, p.data FROM packs p JOIN sources s ON s.id = p.source_id
			WHERE p.id < $1 AND ($2 = '' OR p.source_id IN (SELECT id FROM sources WHERE topic = $2 AND name = $3)) AND p.settled_ms >= $4
			ORDER BY p.id DESC LIMIT $5`, below, f.Topic, f.Name, sinceMillis(f), packsAtOnce)
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		for i := range packs {
			if out, err = appendFiltered(out, &packs[i], f); err != nil {
				return nil, err
			}
			below = packs[i].ID
		}
		if len(packs) < packsAtOnce {
			break
		}
	}
	return s.unsuperseded(ctx, out[:min(len(out), f.Limit)])
}

// Latest gives the tasks that were settled last, the latest first. Tasks sorts by number, which is by batch and within it
// by agent; this looks into all packs of the last batches, so that every agent has its place.
func (s *Store) Latest(ctx context.Context, limit int) ([]Attempt, error) {
	all, err := s.rowTasks(ctx, Filter{Limit: limit})
	if err != nil {
		return nil, err
	}
	var packs []pack
	err = s.DB.SelectContext(ctx, &packs, `SELECT p.id, s.topic, s.name, p.source_id, p.partition, p.settled_ms, p.data FROM packs p JOIN sources s ON s.id = p.source_id
		ORDER BY p.id DESC LIMIT $1`, 2*packsAtOnce)
	if err != nil {
		return nil, fmt.Errorf("list the latest packs: %w", err)
	}
	for i := range packs {
		packed, err := packs[i].attempts()
		if err != nil {
			return nil, err
		}
		all = append(all, packed[max(0, len(packed)-limit):]...)
	}
	slices.SortStableFunc(all, func(a, b Attempt) int { return cmp.Compare(b.SettledMS, a.SettledMS) })
	return s.unsuperseded(ctx, all[:min(len(all), limit)])
}

func sinceMillis(f Filter) int64 {
	if f.Since.IsZero() {
		return 0
	}
	return f.Since.UnixMilli()
}

// appendFiltered adds a pack's attempts that a filter lets through, the latest first.
func appendFiltered(out []Attempt, p *pack, f Filter) ([]Attempt, error) {
	all, err := p.attempts()
	if err != nil {
		return nil, err
	}
	for _, a := range slices.Backward(all) {
		if (f.Below == 0 || a.ID < f.Below) && a.SettledMS >= sinceMillis(f) {
			out = append(out, a)
		}
	}
	return out, nil
}

// unsuperseded leaves out tasks that have had another attempt since: that one is listed in its own place.
func (s *Store) unsuperseded(ctx context.Context, attempts []Attempt) ([]Attempt, error) {
	if len(attempts) == 0 {
		return nil, nil
	}
	var ids, offsets []int64
	var sources, partitions, rounds []int32
	for _, a := range attempts {
		ids, offsets, sources, partitions = append(ids, a.ID), append(offsets, a.Offset), append(sources, a.SourceID), append(partitions, a.Partition)
		rounds = append(rounds, int32(a.Redrives))
	}
	var later []int64
	err := s.DB.SelectContext(ctx, &later, `SELECT k.id FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[], $5::int[]) AS k (id, source_id, partition, "offset", redrives)
		WHERE EXISTS (SELECT 1 FROM attempts n WHERE n.source_id = k.source_id AND n.partition = k.partition AND n."offset" = k."offset"
			AND (n.redrives, n.id) > (k.redrives, k.id))`,
		pq.Array(ids), pq.Array(sources), pq.Array(partitions), pq.Array(offsets), pq.Array(rounds))
	if err != nil {
		return nil, fmt.Errorf("look for later attempts: %w", err)
	}
	return slices.DeleteFunc(attempts, func(a Attempt) bool { return slices.Contains(later, a.ID) }), nil
}
