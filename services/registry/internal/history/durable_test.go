package history

import "testing"

// Batches commit without waiting for the disk; a crash of the database must not forget what Kafka no longer has.
func TestWhatKafkaMayDeleteIsOnDisk(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		b.settle(i, 1, "completed", "done", 0)
		p := b.projection()
		b.project(p)
		var written string
		if err := b.db.Get(&written, `SELECT pg_current_wal_insert_lsn()`); err != nil {
			t.Fatal(err)
		}
		stored, err := p.Durable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, next := range stored {
			sum += next
		}
		var onDisk bool
		if err := b.db.Get(&onDisk, `SELECT pg_current_wal_flush_lsn() >= $1`, written); err != nil || !onDisk || sum != int64(i+1) {
			t.Fatalf("after %d: offsets %v, on disk: %t, %v", i+1, stored, onDisk, err)
		}
	}
}
