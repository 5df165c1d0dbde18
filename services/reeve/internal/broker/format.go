package broker

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The parts of kfake's files that a repair reads and writes; its persist.go is the source. A log entry is length, CRC,
// version and JSON; a segment is record batches as on the wire; an index has an entry a batch.

// storeVersion is the version of kfake's files that is known here.
const storeVersion = 1

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

const frameHeader = 10

// frame makes a log entry.
func frame(data []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(data))
	binary.LittleEndian.PutUint32(b[0:4], uint32(2+len(data)))
	binary.LittleEndian.PutUint16(b[8:10], storeVersion)
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b[4:8], castagnoli(b[8:]))
	return b
}

// unframe reads the first log entry of b and its length; ok is false where there is no whole one.
func unframe(b []byte) (data []byte, n int, ok bool) {
	if len(b) < frameHeader {
		return nil, 0, false
	}
	n = 8 + int(binary.LittleEndian.Uint32(b[0:4]))
	if n < frameHeader || n > len(b) || castagnoli(b[8:n]) != binary.LittleEndian.Uint32(b[4:8]) {
		return nil, 0, false
	}
	return b[frameHeader:n], n, true
}

// batch is what a record batch's header says.
type batch struct {
	size          int
	firstOffset   int64
	lastDelta     int32
	leaderEpoch   int32
	attributes    int16
	maxTimestamp  int64
	producerID    int64
	producerEpoch int16
}

func (b batch) control() bool       { return b.attributes&0x20 != 0 }
func (b batch) transactional() bool { return b.attributes&0x10 != 0 && !b.control() }
func (b batch) next() int64         { return b.firstOffset + int64(b.lastDelta) + 1 }

// batchHeader is the length of a batch without its records.
const batchHeader = 61

// readBatch reads the first batch of b; ok is false where there is no whole one.
func readBatch(b []byte) (batch, bool) {
	if len(b) < batchHeader {
		return batch{}, false
	}
	size := 12 + int(binary.BigEndian.Uint32(b[8:12]))
	if size < batchHeader || size > len(b) || castagnoli(b[21:size]) != binary.BigEndian.Uint32(b[17:21]) {
		return batch{}, false
	}
	return batch{
		size:          size,
		firstOffset:   int64(binary.BigEndian.Uint64(b[0:8])),
		leaderEpoch:   int32(binary.BigEndian.Uint32(b[12:16])),
		attributes:    int16(binary.BigEndian.Uint16(b[21:23])),
		lastDelta:     int32(binary.BigEndian.Uint32(b[23:27])),
		maxTimestamp:  int64(binary.BigEndian.Uint64(b[35:43])),
		producerID:    int64(binary.BigEndian.Uint64(b[43:51])),
		producerEpoch: int16(binary.BigEndian.Uint16(b[51:53])),
	}, true
}

// marker is the batch that ends a producer's transaction in a partition.
func marker(offset int64, leaderEpoch int32, producer int64, epoch int16, commit bool) []byte {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	value := kmsg.EndTxnMarker{}
	record := kmsg.Record{Key: key.AppendTo(nil), Value: value.AppendTo(nil)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // its own length takes one byte
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		FirstOffset: offset, PartitionLeaderEpoch: leaderEpoch, Magic: 2, Attributes: 0x30, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producer, ProducerEpoch: epoch, FirstSequence: -1, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:12], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:21], castagnoli(raw[21:]))
	return raw
}

const indexEntry = 15

// indexOf is the index entry of a batch.
func indexOf(b batch) []byte {
	e := make([]byte, indexEntry)
	e[0] = storeVersion
	binary.LittleEndian.PutUint32(e[2:6], uint32(b.leaderEpoch))
	binary.LittleEndian.PutUint64(e[6:14], uint64(b.maxTimestamp))
	if b.transactional() {
		e[14] = 1
	}
	e[1] = byte(castagnoli(e[2:]))
	return e
}

// pidEntry is an entry of pids.log.
type pidEntry struct {
	Type    string `json:"type"` // init, endtx, timeout
	PID     int64  `json:"pid"`
	Epoch   int16  `json:"epoch"`
	TxID    string `json:"txid,omitempty"`
	Timeout int32  `json:"timeout,omitempty"`
	Commit  *bool  `json:"commit,omitempty"`
}

// commitEntry is an entry of groups.log that commits an offset.
type commitEntry struct {
	Type       string  `json:"type"`
	Group      string  `json:"g"`
	Topic      string  `json:"t,omitempty"`
	Part       int32   `json:"p,omitempty"`
	Offset     int64   `json:"o,omitempty"`
	Epoch      int32   `json:"e,omitempty"`
	Metadata   *string `json:"m,omitempty"`
	LastCommit *int64  `json:"lc,omitempty"`
}
