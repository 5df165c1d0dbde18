// Command bare is the bench's yardstick: two hops by franz-go alone, consume → produce → consume → stdio children or none
// → produce → commit, at least once.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if err := run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	broker := flag.String("broker", "", "address")
	in := flag.String("in", "", "topic of events")
	tasks := flag.String("tasks", "", "topic between the hops")
	out := flag.String("out", "", "topic of outcomes")
	child := flag.String("child", "", "program of four stdio children; none if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	work := pass
	if *child != "" {
		cs, err := startChildren(*child, 4)
		if err != nil {
			return err
		}
		defer cs.close()
		work = cs.work
	}
	var hops sync.WaitGroup
	errs := make(chan error, 2)
	hops.Go(func() {
		errs <- hop(ctx, *broker, *in, *tasks, pass, func(r *kgo.Record) *kgo.Record {
			return &kgo.Record{Key: r.Key, Value: r.Value, Headers: []kgo.RecordHeader{{Key: "origin", Value: origin(r)}}}
		})
	})
	hops.Go(func() {
		errs <- hop(ctx, *broker, *tasks, *out, work, func(r *kgo.Record) *kgo.Record {
			return &kgo.Record{Key: r.Headers[0].Value, Value: r.Value}
		})
	})
	err := <-errs
	stop()
	hops.Wait()
	return err
}

// origin is topic/partition/offset.
func origin(r *kgo.Record) []byte {
	b := append([]byte(r.Topic), '/')
	b = append(strconv.AppendInt(b, int64(r.Partition), 10), '/')
	return strconv.AppendInt(b, r.Offset, 10)
}

// pass hands the records on as they are.
func pass(rs []*kgo.Record, done func(*kgo.Record)) error {
	for _, r := range rs {
		done(r)
	}
	return nil
}

// batch is what one poll gave.
type batch struct {
	records []*kgo.Record
	left    sync.WaitGroup
}

// hop moves records from one topic to another. Polls overlap with what earlier ones still have to produce; commits come
// in the polls' order, each when all of its records are acknowledged.
func hop(ctx context.Context, broker, from, to string, work func([]*kgo.Record, func(*kgo.Record)) error, render func(*kgo.Record) *kgo.Record) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(broker),
		kgo.ConsumerGroup(from+"-bare"),
		kgo.ConsumeTopics(from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.DefaultProduceTopic(to),
		kgo.ProducerLinger(2*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	pending := make(chan *batch, 64)
	committed := newCommitter(cl, pending)
	defer committed.wait()
	defer close(pending)
	for {
		fetches := cl.PollRecords(ctx, 20_000)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("consume %s: %w", from, err)
		}
		b := &batch{records: fetches.Records()}
		b.left.Add(len(b.records))
		produced := func(_ *kgo.Record, err error) {
			if err != nil {
				fmt.Fprintln(os.Stderr, "produce:", err)
				os.Exit(1)
			}
			b.left.Done()
		}
		if err := work(b.records, func(r *kgo.Record) { cl.Produce(context.Background(), render(r), produced) }); err != nil {
			return err
		}
		pending <- b
	}
}

// committer commits polls in their order.
type committer struct{ done chan struct{} }

func newCommitter(cl *kgo.Client, pending <-chan *batch) committer {
	c := committer{make(chan struct{})}
	go func() {
		defer close(c.done)
		for b := range pending {
			b.left.Wait()
			if err := cl.CommitRecords(context.Background(), b.records...); err != nil {
				fmt.Fprintln(os.Stderr, "commit:", err)
				os.Exit(1)
			}
		}
	}()
	return c
}

func (c committer) wait() { <-c.done }

// children are no-op agents; each answers in the order in which it was asked.
type children struct {
	all  []*stdio
	next int
}

type stdio struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
	in   *bufio.Writer
	wait chan pending
}

// pending is a record that a child has been asked about.
type pending struct {
	record *kgo.Record
	done   func(*kgo.Record)
}

func startChildren(program string, n int) (*children, error) {
	cs := &children{}
	for range n {
		cmd := exec.Command(program)
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			return nil, err
		}
		c := &stdio{cmd: cmd, pipe: in, in: bufio.NewWriterSize(in, 64<<10), wait: make(chan pending, 20_000)}
		go c.read(out)
		cs.all = append(cs.all, c)
	}
	return cs, nil
}

func (c *stdio) read(out io.Reader) {
	lines := bufio.NewReaderSize(out, 64<<10)
	for p := range c.wait {
		if _, err := lines.ReadSlice('\n'); err != nil {
			fmt.Fprintln(os.Stderr, "read child:", err)
			os.Exit(1)
		}
		p.done(p.record)
	}
}

// work deals the records out. It comes back when all are written; they are done as the answers come.
func (cs *children) work(rs []*kgo.Record, done func(*kgo.Record)) error {
	for i, r := range rs {
		c := cs.all[(cs.next+i)%len(cs.all)]
		c.wait <- pending{r, done}
		_, _ = c.in.WriteString(`{"id":"`)
		_, _ = c.in.Write(r.Headers[0].Value)
		_, _ = c.in.WriteString(`","type":"task","payload":{"content":`)
		_, _ = c.in.Write(r.Value)
		if _, err := c.in.WriteString("}}\n"); err != nil {
			return fmt.Errorf("write to child: %w", err)
		}
	}
	cs.next += len(rs)
	for _, c := range cs.all {
		if err := c.in.Flush(); err != nil {
			return fmt.Errorf("write to child: %w", err)
		}
	}
	return nil
}

func (cs *children) close() {
	for _, c := range cs.all {
		close(c.wait)
		c.pipe.Close()
		_ = c.cmd.Wait() // it ends with its input; how doesn't matter
	}
}
