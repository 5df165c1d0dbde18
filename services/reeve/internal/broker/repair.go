package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// repair makes a directory whole that a killed broker left, before the cluster reads it. The cluster's own recovery
// isn't enough: it forgets the end of a transaction that it had half written, it takes transactions that were open for
// aborted without writing that down, so that a later commit of the same producer resurrects them after the next kill,
// and it appends behind torn entries.
//
// A commit that was under way is finished; every other open transaction is aborted, by markers as the cluster writes
// them. A kill during the repair is repaired by the next.
func repair(dir string) error {
	if err := checkStore(dir); err != nil {
		return err
	}
	producers, err := readProducers(filepath.Join(dir, "pids.log"))
	if err != nil {
		return err
	}
	if _, err := readLog(filepath.Join(dir, "groups.log"), func([]byte) error { return nil }); err != nil {
		return err
	}
	commit, err := readJournal(dir)
	if err != nil {
		return err
	}
	if commit != nil && !producers.open(*commit) {
		commit = nil
	}
	if commit != nil {
		if err := finishOffsets(dir, *commit); err != nil {
			return err
		}
	}
	ended, err := endTransactions(dir, commit)
	if err != nil {
		return err
	}
	return producers.advance(filepath.Join(dir, "pids.log"), commit, ended)
}

// checkStore refuses files of a version that isn't known here.
func checkStore(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("repair embedded broker: %w", err)
	}
	var meta struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return fmt.Errorf("repair embedded broker: read meta.json: %w", err)
	}
	if meta.Version != storeVersion {
		return fmt.Errorf("repair embedded broker: its files have version %d, and %d is known: use the version of reeve that wrote them, or start on another --data", meta.Version, storeVersion)
	}
	return nil
}

// readLog calls do with each entry of a log, cuts off a torn one at its end, and says how long the log is.
func readLog(path string, do func(data []byte) error) (int64, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("repair embedded broker: %w", err)
	}
	at := 0
	for {
		data, n, ok := unframe(raw[at:])
		if !ok {
			break
		}
		if err := do(data); err != nil {
			return 0, fmt.Errorf("repair embedded broker: read %s: %w", path, err)
		}
		at += n
	}
	if at < len(raw) {
		if err := os.Truncate(path, int64(at)); err != nil {
			return 0, fmt.Errorf("repair embedded broker: %w", err)
		}
	}
	return int64(at), nil
}

// appendLog appends entries to a log in one write.
func appendLog[T any](path string, entries []T) error {
	if len(entries) == 0 {
		return nil
	}
	var b []byte
	for _, e := range entries {
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("repair embedded broker: %w", err)
		}
		b = append(b, frame(data)...)
	}
	return appendTo(path, b)
}

func appendTo(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("repair embedded broker: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("repair embedded broker: %w", err)
	}
	return nil
}

// producers is what pids.log says of each producer last.
type producers map[int64]pidEntry

func readProducers(path string) (producers, error) {
	ps := producers{}
	_, err := readLog(path, func(data []byte) error {
		var e pidEntry
		if err := json.Unmarshal(data, &e); err != nil {
			return err
		}
		if last, known := ps[e.PID]; known && e.Type != "init" {
			e.TxID, e.Timeout = last.TxID, last.Timeout
		}
		ps[e.PID] = e
		return nil
	})
	return ps, err
}

// open reports whether a commit wasn't finished: the last step writes the end, and every end makes a new epoch.
func (ps producers) open(t intent) bool {
	last, known := ps[t.ProducerID]
	return known && last.Epoch == t.Epoch && last.Type != "endtx"
}

// advance writes down the end of the commit, and gives the producers whose transactions were ended a new epoch, so that
// a client from before the kill can't go on in the old one.
func (ps producers) advance(path string, commit *intent, ended []int64) error {
	var entries []pidEntry
	if commit != nil {
		yes := true
		entries = append(entries, pidEntry{Type: "endtx", PID: commit.ProducerID, Epoch: commit.Epoch, Commit: &yes})
		if !slices.Contains(ended, commit.ProducerID) {
			ended = append(ended, commit.ProducerID)
		}
	}
	for _, pid := range ended {
		if last, known := ps[pid]; known && last.Epoch < 1<<15-2 { // at the last epoch the cluster makes a new producer itself
			entries = append(entries, pidEntry{Type: "init", PID: pid, Epoch: last.Epoch + 1, TxID: last.TxID, Timeout: last.Timeout})
		}
	}
	return appendLog(path, entries)
}

// finishOffsets commits the offsets of a commit; those that were committed already, once more.
func finishOffsets(dir string, t intent) error {
	names, err := topicNames(filepath.Join(dir, "topics.json"))
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	var entries []commitEntry
	for _, o := range t.Offsets {
		if len(o.TopicID) > 0 {
			o.Topic = names[string(o.TopicID)]
		}
		if o.Topic == "" {
			continue // the topic is deleted, and its offsets with it
		}
		entries = append(entries, commitEntry{Type: "commit", Group: o.Group, Topic: o.Topic, Part: o.Partition, Offset: o.Offset, Epoch: o.Leader, Metadata: o.Metadata, LastCommit: &now})
	}
	return appendLog(filepath.Join(dir, "groups.log"), entries)
}

// topicNames are the topics' names by id.
func topicNames(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("repair embedded broker: %w", err)
	}
	var list struct {
		Topics []struct {
			Name string `json:"name"`
			ID   []byte `json:"id"`
		} `json:"topics"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("repair embedded broker: read %s: %w", path, err)
	}
	names := make(map[string]string, len(list.Topics))
	for _, t := range list.Topics {
		names[string(t.ID)] = t.Name
	}
	return names, nil
}

// endTransactions ends the transactions that are open in any partition, and gives their producers.
func endTransactions(dir string, commit *intent) ([]int64, error) {
	root := filepath.Join(dir, "partitions")
	partitions, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("repair embedded broker: %w", err)
	}
	var ended []int64
	for _, p := range partitions {
		pids, err := endPartition(filepath.Join(root, p.Name()), commit)
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if !slices.Contains(ended, pid) {
				ended = append(ended, pid)
			}
		}
	}
	return ended, nil
}

// endPartition ends the transactions that are open in a partition. Its segments are cut to whole batches, and each
// batch gets an index entry: without one the cluster takes it for not transactional.
func endPartition(dir string, commit *intent) ([]int64, error) {
	bases, err := segments(dir)
	if err != nil || len(bases) == 0 {
		return nil, err
	}
	open := map[int64]int16{} // epoch by producer
	var last batch
	for _, base := range bases {
		if last, err = readSegment(dir, base, last, open); err != nil {
			return nil, err
		}
	}
	pids := make([]int64, 0, len(open))
	var data, index []byte
	for pid, epoch := range open {
		done := commit != nil && commit.ProducerID == pid && commit.Epoch == epoch
		raw := marker(last.next(), last.leaderEpoch, pid, epoch, done)
		last, _ = readBatch(raw)
		data, index = append(data, raw...), append(index, indexOf(last)...)
		pids = append(pids, pid)
	}
	if len(pids) == 0 {
		return nil, nil
	}
	active := filepath.Join(dir, strconv.FormatInt(bases[len(bases)-1], 10))
	return pids, errors.Join(appendTo(active+".dat", data), appendTo(active+".idx", index))
}

// segments are the base offsets of a partition's segments, in order.
func segments(dir string) ([]int64, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("repair embedded broker: %w", err)
	}
	var bases []int64
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".dat"); ok {
			if base, err := strconv.ParseInt(name, 10, 64); err == nil {
				bases = append(bases, base)
			}
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// readSegment notes the transactions that a segment begins and ends, and makes segment and index whole. It gives the
// last batch so far.
func readSegment(dir string, base int64, last batch, open map[int64]int16) (batch, error) {
	path := filepath.Join(dir, strconv.FormatInt(base, 10))
	raw, err := os.ReadFile(path + ".dat")
	if err != nil {
		return last, fmt.Errorf("repair embedded broker: %w", err)
	}
	index, err := os.ReadFile(path + ".idx")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return last, fmt.Errorf("repair embedded broker: %w", err)
	}
	if len(raw) == 0 {
		last = batch{firstOffset: base - 1, leaderEpoch: last.leaderEpoch}
	}
	at, n := 0, 0
	var missing []byte
	for {
		b, ok := readBatch(raw[at:])
		if !ok {
			break
		}
		if (n+1)*indexEntry > len(index) {
			missing = append(missing, indexOf(b)...)
		}
		if b.transactional() {
			open[b.producerID] = b.producerEpoch
		} else if b.control() {
			delete(open, b.producerID)
		}
		last, at, n = b, at+b.size, n+1
	}
	return last, mend(path, raw[at:], int64(at), index, n, missing)
}

// mend cuts torn ends off a segment and its index, and appends the entries that the index lacks.
func mend(path string, torn []byte, size int64, index []byte, batches int, missing []byte) error {
	if len(torn) > 0 {
		if err := os.Truncate(path+".dat", size); err != nil {
			return fmt.Errorf("repair embedded broker: %w", err)
		}
	}
	keep := min(len(index)/indexEntry, batches) * indexEntry
	if keep < len(index) {
		if err := os.Truncate(path+".idx", int64(keep)); err != nil {
			return fmt.Errorf("repair embedded broker: %w", err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return appendTo(path+".idx", missing)
}
