package route

import (
	"encoding/json"

	"github.com/twmb/franz-go/pkg/kgo"
)

// headerSlab lays a batch's headers into few allocations. A record's part is full: appending to it copies.
type headerSlab struct {
	headers []kgo.RecordHeader
	first   int
	bytes   []byte
}

// Of Reeve's headers of a task record: how many there are at most, how many in a plain event and how many bytes.
const (
	maxAdded    = 13
	usualAdded  = 4
	usualLength = 120
)

func newHeaderSlab(batch []*kgo.Record) headerSlab {
	n := maxAdded
	for _, rec := range batch {
		n += len(rec.Headers) + usualAdded
	}
	return headerSlab{headers: make([]kgo.RecordHeader, 0, n), bytes: make([]byte, 0, usualLength*len(batch))}
}

func (h *headerSlab) begin() { h.first = len(h.headers) }

func (h *headerSlab) end() []kgo.RecordHeader {
	return h.headers[h.first:len(h.headers):len(h.headers)]
}

func (h *headerSlab) add(key string, value []byte) {
	h.headers = append(h.headers, kgo.RecordHeader{Key: key, Value: value})
}

// addBytes adds a value that is appended to the slab. When the slab has to grow, earlier values stay where they are.
func (h *headerSlab) addBytes(key string, appendTo func([]byte) []byte) {
	start := len(h.bytes)
	h.bytes = appendTo(h.bytes)
	h.add(key, h.bytes[start:len(h.bytes):len(h.bytes)])
}

// addText adds a value, unless it is empty.
func (h *headerSlab) addText(key, value string) {
	if value != "" {
		h.add(key, []byte(value))
	}
}

// errorValue is the value of an outcome that is no result.
func errorValue(end Ending) []byte {
	b, err := json.Marshal(struct {
		Error string `json:"error"`
		Class string `json:"error_class,omitempty"`
	}{end.Message, string(end.Class)})
	if err != nil {
		return nil // strings always marshal
	}
	return b
}
