package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// intent is a commit that the cluster is about to carry out.
type intent struct {
	ProducerID int64          `json:"producer_id"`
	Epoch      int16          `json:"epoch"`
	Offsets    []groupOffset  `json:"offsets"`
	pending    map[string]int // in Offsets, by group, topic and partition
}

// groupOffset is an offset that the transaction commits for a group. The topic is named or, by newer clients, given by
// its id.
type groupOffset struct {
	Group     string  `json:"group"`
	Topic     string  `json:"topic,omitempty"`
	TopicID   []byte  `json:"topic_id,omitempty"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Leader    int32   `json:"leader_epoch"`
	Metadata  *string `json:"metadata"`
}

// byTopicID is the first version of TxnOffsetCommit that gives topics by id.
const byTopicID = 6

// journal keeps the one commit that is under way.
//
// kfake ends a transaction by many writes: a marker in every partition, then an offset for every partition of every
// group. A kill between two of them would leave half of the transaction, so the whole of it is written down first, in
// one write, and finished at the next start. The cluster handles one request at a time, so there is one at most.
type journal struct {
	file *os.File
	open map[int64]*intent // transactions that have committed offsets and haven't ended, by producer
}

func journalPath(dir string) string { return filepath.Join(dir, "commit.journal") }

func openJournal(dir string) (*journal, error) {
	f, err := os.OpenFile(journalPath(dir), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open commit journal: %w", err)
	}
	return &journal{file: f, open: map[int64]*intent{}}, nil
}

// offsets notes the offsets that a transaction will commit. The cluster may refuse them still; then its client aborts.
func (j *journal) offsets(r *kmsg.TxnOffsetCommitRequest) {
	t := j.open[r.ProducerID]
	if t == nil || t.Epoch != r.ProducerEpoch {
		t = &intent{ProducerID: r.ProducerID, Epoch: r.ProducerEpoch, pending: map[string]int{}}
		j.open[r.ProducerID] = t
	}
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			o := groupOffset{Group: r.Group, Topic: topic.Topic, Partition: p.Partition, Offset: p.Offset, Leader: p.LeaderEpoch, Metadata: p.Metadata}
			if r.Version >= byTopicID {
				o.Topic, o.TopicID = "", bytes.Clone(topic.TopicID[:])
			}
			key := fmt.Sprintf("%s\x00%s%x\x00%d", o.Group, o.Topic, o.TopicID, o.Partition)
			if i, again := t.pending[key]; again {
				t.Offsets[i] = o
				continue
			}
			t.pending[key] = len(t.Offsets)
			t.Offsets = append(t.Offsets, o)
		}
	}
}

// end notes that a transaction is about to end.
func (j *journal) end(r *kmsg.EndTxnRequest) error {
	t := j.open[r.ProducerID]
	delete(j.open, r.ProducerID)
	if !r.Commit {
		return nil
	}
	if t == nil || t.Epoch != r.ProducerEpoch {
		t = &intent{ProducerID: r.ProducerID, Epoch: r.ProducerEpoch}
	}
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write commit journal: %w", err)
	}
	if _, err := j.file.WriteAt(frame(b), 0); err != nil {
		return fmt.Errorf("write commit journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write commit journal: %w", err)
	}
	return nil
}

func (j *journal) close() { _ = j.file.Close() } // every write was synced

// readJournal gives the last commit that was begun, nil where there is none. One that was torn wasn't begun.
func readJournal(dir string) (*intent, error) {
	b, err := os.ReadFile(journalPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read commit journal: %w", err)
	}
	data, _, ok := unframe(b)
	if !ok {
		return nil, nil
	}
	var t intent
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&t); err != nil {
		return nil, fmt.Errorf("read commit journal: %w", err)
	}
	return &t, nil
}
