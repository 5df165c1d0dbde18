package projection

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Headers are those of a record's headers that its Target looks at, one after the other. The zero value has none.
type Headers struct {
	keys []string
	list []kgo.RecordHeader
	raw  []byte
}

// HeadersOf gives the headers of a record that a Target gets which names their keys; keys are the same here.
//
// The client makes a list of all headers, with a copy of each key, and that would cost more than all that is done with an
// outcome afterwards. So a decompressor leaves out everything else: the value of a record that was compressed, as all are
// that Reeve's transactions produce, is the keys' places and the values of these headers, and the client finds no others.
func HeadersOf(r *kgo.Record, keys []string) Headers {
	if r.Attrs.CompressionType() == uint8(kgo.CodecNone) {
		return Headers{keys: keys, list: r.Headers}
	}
	return Headers{raw: r.Value}
}

// Next gives the next header by its key's place among the keys. The bytes are the record's own. ok is false when there are
// no more.
func (h *Headers) Next() (key int, value []byte, ok bool) {
	if len(h.raw) > 0 {
		key = int(h.raw[0])
		value, h.raw, ok = cutBytes(h.raw[1:])
		return key, value, ok
	}
	for i := range h.list {
		if at := slices.Index(h.keys, h.list[i].Key); at >= 0 {
			value, h.list = h.list[i].Value, h.list[i+1:]
			return at, value, true
		}
	}
	return 0, nil, false
}

// cutBytes takes bytes with their length before them; a negative length is that of null.
func cutBytes(b []byte) (v, rest []byte, ok bool) {
	var n int64
	size := 1
	if len(b) > 0 && b[0] < 0x80 && b[0]&1 == 0 { // as nearly all are: below 64
		n = int64(b[0] >> 1)
	} else {
		n, size = binary.Varint(b)
	}
	if size <= 0 || n > int64(len(b)-size) {
		return nil, nil, false
	}
	if b = b[size:]; n < 0 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

// headersOnly is a decompressor that leaves out all of a record but some headers, which take the value's place.
type headersOnly struct {
	keys    []string
	inner   kgo.Decompressor
	scratch sync.Pool // of *[]byte, which a batch is decompressed into
}

// newHeadersOnly makes one that keeps the headers with some keys, 255 at most.
func newHeadersOnly(keys []string) *headersOnly {
	h := &headersOnly{keys: keys}
	h.scratch.New = func() any { return new([]byte) }
	h.inner = kgo.DefaultDecompressor(scratchPool{&h.scratch})
	return h
}

// Decompress is for kgo.
func (h *headersOnly) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	b, err := h.inner.Decompress(src, codec)
	if err != nil || codec == kgo.CodecNone {
		return b, err
	}
	defer h.scratch.Put(&b)
	w := rewriter{keys: h.keys, out: make([]byte, 0, len(b)/2)}
	if err := w.batch(b); err != nil {
		return nil, fmt.Errorf("read a batch of records: %w", err)
	}
	return w.out, nil
}

// scratchPool lends the decompressor memory that headersOnly gives back.
type scratchPool struct{ *sync.Pool }

// GetDecompressBytes and PutDecompressBytes are those of the client's pool.
func (p scratchPool) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	return *p.Get().(*[]byte) //nolint:forcetypeassert // it holds nothing else
}

// PutDecompressBytes see GetDecompressBytes.
func (p scratchPool) PutDecompressBytes(b []byte) { p.Put(&b) }

var errRecord = errors.New("a record ends before its time")

// rewriter writes the records of a batch anew.
type rewriter struct {
	keys []string
	out  []byte

	value []byte   // of the record under way
	last  []header // of the record before, by place: a batch's records have the same headers in the same order
}

// header is a header's key and its place among the keys, negative if it isn't kept.
type header struct {
	key  []byte
	kept int
}

// batch takes records as https://kafka.apache.org/documentation/#record has them. What is cut off at the end is left out, as
// the client does.
func (w *rewriter) batch(b []byte) error {
	for len(b) > 0 {
		n, size := binary.Varint(b)
		if size <= 0 || n < 0 || n > int64(len(b)-size) {
			return nil
		}
		if err := w.record(b[size : size+int(n)]); err != nil {
			return err
		}
		b = b[size+int(n):]
	}
	return nil
}

// record writes a record with its headers as its value, and without a key and headers.
func (w *rewriter) record(b []byte) error {
	if len(b) == 0 {
		return errRecord
	}
	at := 1 // behind the attributes
	for range 2 {
		_, size := binary.Varint(b[at:]) // differences of time and offset
		if size <= 0 {
			return errRecord
		}
		at += size
	}
	_, rest, ok := cutBytes(b[at:]) // the key
	if ok {
		_, rest, ok = cutBytes(rest) // the value
	}
	if !ok {
		return errRecord
	}
	if err := w.headers(rest); err != nil {
		return err
	}
	var length [binary.MaxVarintLen64]byte
	l := length[:binary.PutVarint(length[:], int64(len(w.value)))]
	const null, none = 1, 0 // a length of -1 and of 0, as a varint
	w.out = binary.AppendVarint(w.out, int64(at+1+len(l)+len(w.value)+1))
	w.out = append(append(append(w.out, b[:at]...), null), l...)
	w.out = append(append(w.out, w.value...), none)
	return nil
}

// headers writes the record's value.
func (w *rewriter) headers(b []byte) error {
	w.value = w.value[:0]
	n, size := binary.Varint(b)
	if size <= 0 || n > int64(len(b)) {
		return errRecord
	}
	b = b[size:]
	for place := range int(n) {
		key, rest, ok := cutBytes(b)
		if !ok {
			return errRecord
		}
		kept := w.place(place, key)
		_, after, ok := cutBytes(rest)
		if !ok {
			return errRecord
		}
		if kept >= 0 {
			w.value = append(append(w.value, byte(kept)), rest[:len(rest)-len(after)]...) // the value with its length
		}
		b = after
	}
	return nil
}

// place is a header's key's place among the keys.
func (w *rewriter) place(at int, key []byte) int {
	if at < len(w.last) && string(w.last[at].key) == string(key) {
		return w.last[at].kept
	}
	kept := slices.Index(w.keys, string(key))
	if at < len(w.last) {
		w.last[at] = header{key, kept}
	} else if at == len(w.last) {
		w.last = append(w.last, header{key, kept})
	}
	return kept
}
