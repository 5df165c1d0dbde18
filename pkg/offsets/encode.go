package offsets

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// What the first two bytes may be; doc.go has the format.
const (
	version1   = 1
	version2   = 2 // version 1 and Passed
	version3   = 3 // version 2 and what entries keep of a task's attempts
	version4   = 4 // version 2 with Far in place of Settled
	version5   = 5 // version 2 and Passed.Over
	flagClean  = 1
	flagStrict = 2
	flagSince  = 4
	flagOutage = 8
)

// Encode writes the metadata of a commit at offset l. It drops what lies outside the window and entries beyond
// MaxEntries, which the tracker never lets happen. The times of the first failures are left out where they would make it
// longer than MaxBytes: nothing depends on them.
func (m *Metadata) Encode(l int64) string {
	since := slices.ContainsFunc(m.Entries, func(e Entry) bool { return e.Kept })
	kept := since || len(m.Outages) > 0
	b := m.append(make([]byte, 0, 128), l, kept, since)
	if since && base64.RawURLEncoding.EncodedLen(len(b)) > MaxBytes {
		b = m.append(b[:0], l, kept, false)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// append writes the bytes, as version 3 where entries keep something or there were outages.
func (m *Metadata) append(b []byte, l int64, kept, since bool) []byte {
	b = append(b, version1, 0)
	far := len(m.Far) > 0 && !kept             // of dead letters no attempts are kept
	over := m.Passed.Over > 0 && !kept && !far // neither is there on user topics
	counts := m.Passed.Since > 0 || kept || far || over
	switch {
	case over:
		b[0] = version5
	case far:
		b[0] = version4
	case kept:
		b[0] = version3
	case counts:
		b[0] = version2
	}
	if m.Clean {
		b[1] |= flagClean
	}
	if m.Strict {
		b[1] |= flagStrict
	}
	if since {
		b[1] |= flagSince
	}
	b = append(b, m.TopicID[:]...)
	node := m.Node[:min(len(m.Node), MaxNode)]
	b = binary.AppendUvarint(b, uint64(len(node)))
	b = append(b, node...)
	b = binary.AppendUvarint(b, distance(l, m.Reserved))
	b = binary.AppendUvarint(b, distance(l, m.Suspects))
	if counts {
		b = binary.AppendUvarint(b, uint64(max(m.Passed.Since, 0)))
		b = binary.AppendUvarint(b, uint64(max(m.Passed.N, 0)))
	}
	if kept && len(m.Outages) > 0 {
		b[1] |= flagOutage
		b = appendOutages(b, m.Outages[max(len(m.Outages)-MaxOutages, 0):])
	}
	if over {
		b = binary.AppendUvarint(b, uint64(m.Passed.Over))
	}
	entries := m.Entries[:min(len(m.Entries), MaxEntries)]
	b = binary.AppendUvarint(b, uint64(len(entries)))
	previous := l
	for _, e := range entries {
		b = binary.AppendUvarint(b, uint64(e.Offset-previous))
		previous = e.Offset
		a := uint64(min(e.Attempt, MaxAttempt)) << 1
		if e.Alone {
			a |= 1
		}
		b = binary.AppendUvarint(b, a)
		b = binary.AppendUvarint(b, uint64(max(e.NotBefore, 0)))
		if kept {
			b = e.append(b, since)
		}
	}
	if far {
		return m.Far.append(b, l)
	}
	return m.Settled.append(b)
}

// appendOutages writes each as its begin and, but for one that lasts, one more than its length.
func appendOutages(b []byte, all []Outage) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, o := range all {
		b = binary.AppendUvarint(b, uint64(max(o.Since, 0)))
		if o.Until == 0 {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(max(o.Until-max(o.Since, 0), 0))+1)
		}
	}
	return b
}

// Fits reports whether Kafka takes an encoded Metadata. All do but those whose Far is scattered over very much.
func Fits(encoded string) bool { return len(encoded) <= MaxBytes }

// append writes what an entry keeps: 0, or one more than the counts, then the time where times are written.
func (e *Entry) append(b []byte, since bool) []byte {
	if !e.Kept {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(min(e.Burnt, MaxBurnt)<<2|min(e.Timeouts, MaxTimeouts))+1)
	if since {
		b = binary.AppendUvarint(b, uint64(max(e.FirstFailed, 0)))
	}
	return b
}

func distance(l, mark int64) uint64 { return uint64(min(max(mark-l, 0), Window)) }
