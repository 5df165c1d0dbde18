package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/reeve-run/reeve/pkg/event"
)

// A pack holds plain attempts: first ones that completed. Its data is, in version 2, a byte 2, then for each attempt, as
// varints of encoding/binary (signed ones zigzag), differences taken to the attempt before:
//
//	offset (difference), partition of the outcomes topic, offset there (difference)
//	published (difference), dispatched - published, started - dispatched, settled - started, all in milliseconds
//	version, runner: each the length + 1 and the bytes, or 0 for the same as before
//	event id: 0 for that of an event which has none of its own, 1 and 16 bytes for a UUID in lower case, or the length + 2 and
//	the bytes
//
// In version 1 an event id is its length and its bytes.
const (
	packVersion1 = 1
	packVersion  = 2
)

const (
	idOfNone = iota // an event without an id of its own: event.DefaultID
	idUUID
	idBytes
)

const (
	// span is how far apart the offsets in a pack may be, so that a search by offset is bounded.
	span = 16_384
	// mostInPack bounds what is unpacked for one attempt.
	mostInPack = 1_024
)

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

	before *attempt // the last one added
}

// plain reports whether an attempt may go into a pack: nobody looks for it by anything but its task or its agent.
func (a *attempt) plain() bool {
	return a.status == completed && a.number == 1 && a.redrives == 0 && len(a.correlationID) == 0 && len(a.errorClass) == 0
}

// fits reports whether there is room for an attempt, whose offset is near enough to those that are there.
func (b *builder) fits(a *attempt) bool {
	return b.count == 0 || b.count < mostInPack && max(b.last, a.offset)-min(b.first, a.offset) < span
}

// add adds an attempt, which must stay as it is until the next one was added.
func (b *builder) add(a *attempt) {
	if b.count == 0 {
		b.data = append(b.data[:0], packVersion)
		b.first, b.last, b.before = a.offset, a.offset, &attempt{}
	}
	d, was := b.data, b.before
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
	b.data, b.before = appendEventID(d, a, id), a
	b.events = append(b.events, eventHash(id))
	b.count++
	b.first, b.last, b.settled = min(b.first, a.offset), max(b.last, a.offset), max(b.settled, a.settled)
}

func appendEventID(d []byte, a *attempt, id []byte) []byte {
	if isDefaultID(id, a) {
		return append(d, idOfNone)
	}
	if len(id) == uuidLen {
		if with, ok := appendUUID(append(d, idUUID), id); ok {
			return with
		}
	}
	return append(binary.AppendUvarint(d, uint64(len(id)+idBytes)), id...)
}

// isDefaultID reports whether an event's id is event.DefaultID.
func isDefaultID(id []byte, a *attempt) bool {
	topic := bytes.IndexByte(a.agent, '/')
	if topic < 0 || len(id) < topic || string(id[:topic]) != string(a.agent[:topic]) {
		return false
	}
	var rest [2 * 21]byte
	want := strconv.AppendInt(append(rest[:0], ':'), int64(a.partition), 10)
	want = strconv.AppendInt(append(want, ':'), a.offset, 10)
	return string(id[topic:]) == string(want)
}

const uuidLen = 36

// isDash reports whether a UUID as text has a dash there.
func isDash(i int) bool { return i == 8 || i == 13 || i == 18 || i == 23 }

// appendUUID writes the 16 bytes of a UUID that is given as text.
func appendUUID(d, text []byte) (with []byte, ok bool) {
	var high byte
	half := false
	for i, c := range text {
		switch {
		case isDash(i):
			if c != '-' {
				return nil, false
			}
			continue
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return nil, false
		}
		if half {
			d = append(d, high|c)
		}
		high, half = c<<4, !half
	}
	return d, true
}

// uuidText is a UUID as text.
func uuidText(b string) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, uuidLen)
	for _, c := range []byte(b) {
		if isDash(len(out)) {
			out = append(out, '-')
		}
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
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

// eventID reads the id of the event at a place.
func (u *unpacker) eventID(version byte, topic string, partition int32, offset int64) string {
	n := u.unsigned()
	switch {
	case version == packVersion1:
		return clean(u.bytes(n))
	case n == idOfNone:
		return event.DefaultID(topic, partition, offset)
	case n == idUUID:
		return uuidText(u.bytes(16))
	}
	return clean(u.bytes(n - idBytes))
}

// unpack gives the attempts of a pack of a topic's partition in their order, numbered from id on.
func unpack(id int64, topic string, partition int32, data []byte) ([]Attempt, error) {
	if len(data) == 0 || data[0] < packVersion1 || data[0] > packVersion {
		return nil, fmt.Errorf("unpack attempts %d: its version is unknown", id)
	}
	version, u := data[0], unpacker{data: data[1:]}
	out := make([]Attempt, 0, min(mostInPack, len(data)/10))
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
		a.EventID = u.eventID(version, topic, partition, a.Offset)
		if u.err != nil {
			return nil, fmt.Errorf("unpack attempts %d: %w", id, u.err)
		}
		was = a
		out = append(out, a)
	}
	return out, nil
}
