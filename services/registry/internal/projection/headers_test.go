package projection

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/testenv"
)

// said writes headers as text; null and empty are told apart.
func said(headers ...kgo.RecordHeader) string {
	var b strings.Builder
	for _, h := range headers {
		fmt.Fprintf(&b, "%s=%#v;", h.Key, h.Value)
	}
	return b.String()
}

func drain(r *kgo.Record, keys []string) string {
	var all []kgo.RecordHeader
	for h := HeadersOf(r, keys); ; {
		key, value, ok := h.Next()
		if !ok {
			return said(all...)
		}
		all = append(all, kgo.RecordHeader{Key: keys[key], Value: value})
	}
}

// with are the headers with some keys.
func with(headers []kgo.RecordHeader, keys []string) []kgo.RecordHeader {
	return slices.DeleteFunc(slices.Clone(headers), func(h kgo.RecordHeader) bool { return !slices.Contains(keys, h.Key) })
}

// sample are records with keys, values and headers of all kinds.
func sample() []*kgo.Record {
	long := []byte(strings.Repeat("long ", 5000))
	h := func(key string, value []byte) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: value} }
	return []*kgo.Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{h("a", []byte("1")), h("b", nil), h("", []byte{})}},
		{},
		{Key: []byte{}, Value: []byte{}, Headers: []kgo.RecordHeader{h("only", []byte("x"))}},
		{Value: long, Headers: []kgo.RecordHeader{h("a", []byte("2")), h("a", []byte("3"))}},
		{Key: long, Value: []byte("v")},
		{Headers: []kgo.RecordHeader{h("a", long), h("z", []byte("end"))}},
	}
}

// However a batch is compressed, or if it isn't, a target sees the same headers at the same offsets.
func TestHeadersAreThoseThatWereProduced(t *testing.T) {
	const topic = "t"
	keys := []string{"z", "a", ""} // and others are left out
	opts := []kgo.Opt{kgo.SeedBrokers(testenv.Kfake(t).Address), kgo.DefaultProduceTopic(topic)}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.Topic{Name: topic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	var want []*kgo.Record
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression(), kgo.GzipCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		producer, err := kgo.NewClient(append(opts, kgo.ProducerBatchCompression(codec))...)
		if err != nil {
			t.Fatal(err)
		}
		records := sample()
		err = producer.ProduceSync(t.Context(), records...).FirstErr()
		producer.Close()
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, records...)
	}
	reader, err := kgo.NewClient(append(opts, kgo.ConsumeTopics(topic), kgo.WithDecompressor(newHeadersOnly(keys)))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for n := 0; n < len(want); {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if got, want := drain(r, keys), said(with(want[n].Headers, keys)...); r.Offset != int64(n) || got != want {
				t.Errorf("record %d at %d has headers %.200s, want %.200s", n, r.Offset, got, want)
			}
			if compressed := r.Attrs.CompressionType() != 0; compressed && (r.Key != nil || len(r.Headers) > 0) {
				t.Errorf("record %d has a key or a list of headers", n)
			}
			if r.Timestamp.UnixMilli() != want[n].Timestamp.UnixMilli() {
				t.Errorf("record %d is of %s, want %s", n, r.Timestamp, want[n].Timestamp)
			}
			n++
		})
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add([]byte{14, 0, 0, 0, 1, 1, 2, 2, 'a', 2, 'b'})
	f.Add([]byte{20, 0, 0, 0, 2, 'k', 4, 'v', 'w', 0})
	keys := []string{"a", "b"}
	f.Fuzz(func(t *testing.T, batch []byte) {
		w := rewriter{keys: keys}
		if w.batch(batch) != nil {
			return
		}
		again := rewriter{keys: keys}
		if err := again.batch(w.out); err != nil || len(w.out) > 4*len(batch) {
			t.Errorf("%x became %x, which can't be read: %v", batch, w.out, err)
		}
		h, left := Headers{raw: batch}, len(batch)
		for {
			if _, _, ok := h.Next(); !ok {
				break
			} else if len(h.raw) >= left {
				t.Fatal("headers without an end")
			}
			left = len(h.raw)
		}
	})
}

func TestPollsFollowFastOnlyWhereMoreIsThere(t *testing.T) {
	for found, want := range map[int]string{0: "100ms", little - 1: "100ms", little: "300ms", maxBatch - 1: "300ms", maxBatch: "0s"} {
		if got := pause(found).String(); got != want {
			t.Errorf("after %d records: %s, want %s", found, got, want)
		}
	}
}
