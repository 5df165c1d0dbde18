package broker

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestAFrameReadsBack(t *testing.T) {
	for _, data := range []string{"", "{}", `{"type":"init"}`} {
		framed := append(frame([]byte(data)), "more"...)
		got, n, ok := unframe(framed)
		if !ok || string(got) != data || n != len(framed)-4 {
			t.Errorf("%q came back as %q, %d, %v", data, got, n, ok)
		}
	}
}

func TestAMarkerReadsBack(t *testing.T) {
	b, ok := readBatch(marker(7, 3, 99, 5, true))
	if !ok || !b.control() || b.transactional() || b.next() != 8 || b.producerID != 99 || b.producerEpoch != 5 || b.leaderEpoch != 3 {
		t.Errorf("got %+v, %v", b, ok)
	}
}

func FuzzUnframe(f *testing.F) {
	f.Add(frame([]byte(`{"type":"commit"}`)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, n, ok := unframe(b); ok && (n > len(b) || len(data) != n-frameHeader) {
			t.Errorf("%d bytes of %d", n, len(b))
		}
	})
}

// Whatever a segment holds, a repair cuts it to whole batches with an index entry each, and a second one changes nothing.
func FuzzRepairOfASegment(f *testing.F) {
	f.Add(marker(0, 0, 1, 0, true), []byte{})
	f.Add(append(marker(0, 0, 1, 0, true), marker(1, 0, 1, 1, false)[:40]...), indexOf(batch{}))
	f.Add([]byte("nonsense"), []byte("nonsense"))
	f.Fuzz(func(t *testing.T, data, index []byte) {
		dir := t.TempDir()
		write := func(name string, b []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		read := func(name string) []byte {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return b
		}
		write("0.dat", data)
		write("0.idx", index)
		if _, err := endPartition(dir, nil); err != nil {
			t.Fatal(err)
		}
		data, index = read("0.dat"), read("0.idx")
		n := 0
		for rest := data; len(rest) > 0; n++ {
			b, ok := readBatch(rest)
			if !ok {
				t.Fatalf("a torn batch is left after %d", n)
			}
			rest = rest[b.size:]
		}
		if len(index) != n*indexEntry {
			t.Fatalf("%d batches, %d bytes of index", n, len(index))
		}
		if pids, err := endPartition(dir, nil); err != nil || len(pids) > 0 || !bytes.Equal(read("0.dat"), data) {
			t.Fatalf("a second repair changed it: %v, %v", pids, err)
		}
	})
}
