package history

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A pack holds plain attempts: first ones that completed. Its data is, in version 1, a byte 1, then for each attempt, as
// varints of encoding/binary (signed ones zigzag), differences taken to the attempt before:
//
//	offset (difference), partition of the outcomes topic, offset there (difference)
//	published (difference), dispatched - published, started - dispatched, settled - started, all in milliseconds
//	version, runner: each the length + 1 and the bytes, or 0 for the same as before
//	event id: the length and the bytes
const packVersion = 1

// span is how far apart the offsets in a pack may be, so that a search by offset is bounded.
const span = 16_384

// builder packs attempts of one source and partition.
type builder struct {
	source    int32
	partition int32
	count     int64
	first     int64
	last      int64
	settled   int64
	data      []byte
	events    []uint64 // hashes of the attempts' event ids

	before attempt // the last one added
}

// plain reports whether an attempt may go into a pack: nobody looks for it by anything but its task or its agent.
func (a *attempt) plain() bool {
	return a.status == completed && a.number == 1 && a.redrives == 0 && len(a.correlationID) == 0 && len(a.errorClass) == 0
}

// fits reports whether an attempt's offset is near enough to those that are there.
func (b *builder) fits(a *attempt) bool {
	return b.count == 0 || max(b.last, a.offset)-min(b.first, a.offset) < span
}

func (b *builder) add(a *attempt) {
	if b.count == 0 {
		b.data = append(b.data[:0], packVersion)
		b.first, b.last = a.offset, a.offset
	}
	d, was := b.data, &b.before
	d = binary.AppendVarint(d, a.offset-was.offset)
	d = binary.AppendUvarint(d, uint64(a.atPartition))
	d = binary.AppendVarint(d, a.atOffset-was.atOffset)
	d = binary.AppendVarint(d, a.published-was.published)
	d = binary.AppendVarint(d, a.dispatched-a.published)
	d = binary.AppendVarint(d, a.started-a.dispatched)
	d = binary.AppendVarint(d, a.settled-a.started)
	d = appendSame(d, cut(a.version), cut(was.version))
	d = appendSame(d, cut(a.runner), cut(was.runner))
	id := cut(a.eventID)
	d = append(binary.AppendUvarint(d, uint64(len(id))), id...)
	b.data, b.before = d, *a
	b.events = append(b.events, eventHash(id))
	b.count++
	b.first, b.last, b.settled = min(b.first, a.offset), max(b.last, a.offset), max(b.settled, a.settled)
}

func cut(v []byte) []byte { return v[:min(len(v), maxText)] }

func appendSame(d, v, before []byte) []byte {
	if len(v) > 0 && string(v) == string(before) {
		return append(d, 0)
	}
	return append(binary.AppendUvarint(d, uint64(len(v)+1)), v...)
}

var errPack = errors.New("the pack is cut off")

// unpacker reads a pack's data.
type unpacker struct {
	data []byte
	err  error
}

func (u *unpacker) signed() int64 {
	n, size := binary.Varint(u.data)
	return n * u.took(size)
}

func (u *unpacker) unsigned() int64 {
	n, size := binary.Uvarint(u.data)
	return int64(n) * u.took(size)
}

// took moves on; it is 0 where there was nothing to take, so that what was read counts for nothing.
func (u *unpacker) took(size int) int64 {
	if size <= 0 {
		u.err, u.data = errPack, nil
		return 0
	}
	u.data = u.data[size:]
	return 1
}

func (u *unpacker) bytes(n int64) string {
	if n < 0 || n > int64(len(u.data)) {
		u.err, u.data = errPack, nil
		return ""
	}
	s := string(u.data[:n])
	u.data = u.data[n:]
	return s
}

func (u *unpacker) same(before string) string {
	if n := u.unsigned(); n > 0 {
		return u.bytes(n - 1)
	}
	return before
}

// unpack gives the attempts of a pack in their order, numbered from id on.
func unpack(id int64, partition int32, data []byte) ([]Attempt, error) {
	if len(data) == 0 || data[0] != packVersion {
		return nil, fmt.Errorf("unpack attempts %d: its version is unknown", id)
	}
	u := unpacker{data: data[1:]}
	out := make([]Attempt, 0, len(data)/40)
	var was Attempt
	for len(u.data) > 0 {
		a := Attempt{ID: id + int64(len(out)), Partition: partition, Attempt: 1, StatusNumber: completed, OutcomeNumber: 1}
		a.Offset = was.Offset + u.signed()
		a.AtPartition = int32(u.unsigned())
		a.AtOffset = was.AtOffset + u.signed()
		a.PublishedMS = was.PublishedMS + u.signed()
		a.DispatchedMS = a.PublishedMS + u.signed()
		a.StartedMS = a.DispatchedMS + u.signed()
		a.SettledMS = a.StartedMS + u.signed()
		a.Version = u.same(was.Version)
		a.Runner = u.same(was.Runner)
		a.EventID = clean(u.bytes(u.unsigned()))
		if u.err != nil {
			return nil, fmt.Errorf("unpack attempts %d: %w", id, u.err)
		}
		was = a
		out = append(out, a)
	}
	return out, nil
}
