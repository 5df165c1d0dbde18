package pool

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/worker"
)

// noop is an agent in Go that answers everything at once, as cheaply as it can.
func noop() {
	in := bufio.NewReaderSize(os.Stdin, 64<<10)
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		for err == bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it bare
			line, err = in.ReadSlice('\n')
		}
		if err != nil || bytes.HasPrefix(line, []byte(`{"type":"shutdown"`)) {
			return
		}
		id := line[len(`{"id":"`):]
		id = id[:bytes.IndexByte(id, '"')]
		_, _ = out.WriteString(`{"id":"`)
		_, _ = out.Write(id)
		_, _ = out.WriteString(`","status":"ok","result":{}}` + "\n")
		if in.Buffered() == 0 {
			_ = out.Flush()
		}
	}
}

// BenchmarkStdio is the way of an attempt to one of four Go children and back, 390-byte events.
func BenchmarkStdio(b *testing.B) {
	a := agent(func(a *spec.Agent) {
		a.Runtime, a.Command, a.Env = spec.Command, []string{os.Args[0]}, map[string]string{"POOL_TEST_NOOP": "1"}
		a.Config.Concurrency, a.Pool.Min = 256, 4
	})
	f := start(b, a, nil)
	f.awaitSlots(1024)
	record := &kgo.Record{Topic: "reeve.tasks.t.a", Value: []byte(`{"a":"` + strings.Repeat("x", 380) + `"}`), Timestamp: time.Now(),
		Headers: []kgo.RecordHeader{{Key: "reeve-agent", Value: []byte("t/a")}, {Key: "reeve-origin", Value: []byte("t/0/1/uuid")}, {Key: "reeve-event", Value: []byte("1700000000000 t:0:1")}}}
	var left atomic.Int64
	var done sync.WaitGroup
	done.Add(1)
	left.Store(int64(b.N))
	wake := make(chan struct{}, 1)
	told := func(worker.Result) {
		if left.Add(-1) == 0 {
			done.Done()
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := b.N; n > 0; {
		slots := min(f.pool.Slots(), n)
		if slots == 0 {
			<-wake
			continue
		}
		batch := make([]*worker.Attempt, slots)
		for i := range batch {
			batch[i] = worker.NewAttempt(record, 1, time.Minute, false, told)
		}
		f.pool.Run(batch)
		n -= slots
	}
	done.Wait()
}
