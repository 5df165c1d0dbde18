package hop_test

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/offsets"
)

// next polls until it gets records, and gives the offset of the first.
func next(t *testing.T, m *hop.Member) int64 {
	t.Helper()
	for {
		fs, err := m.Poll(t.Context(), 50)
		if err != nil {
			t.Fatal(err)
		}
		m.AllowRebalance()
		if rs := fs.Records(); len(rs) > 0 {
			return rs[0].Offset
		}
	}
}

func (h *handler) cuts() []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.truncated)
}

// The fake can't lose the end of a log: what it has there stands for what came at these offsets afterwards.

// A new leader's log ends before what was read: the client finds that by the leaders' epochs.
func TestALogThatLostItsEndIsReadOnFromThereByEpochs(t *testing.T) {
	s := newStand(t, "in", "out")
	s.publish("in", 0, 20)
	h := newHandler()
	m := s.member("a", h)
	copyTo(t, m, s.pool("a"), "a", "out", 20)
	s.fake.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		req := r.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, p.LeaderEpoch, 15
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	if err := s.fake.MoveTopicPartition("in", 0, 0); err != nil {
		t.Fatal(err)
	}
	m.Client().ForceMetadataRefresh()
	if at := next(t, m); at != 15 {
		t.Errorf("it is read from %d", at)
	}
	if got := h.cuts(); !slices.Equal(got, []int64{15}) {
		t.Errorf("told of ends at %v", got)
	}
}

// outOfRange lets the broker say once more, until the end of partition 0 of in is asked for with success, that an offset is out
// of range. end is what it says then, after a failure.
func (s *stand) outOfRange(end int64) {
	var asked atomic.Int32
	s.fake.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if asked.Load() >= 2 {
			return nil, nil, false
		}
		s.fake.KeepControl()
		req := r.(*kmsg.FetchRequest)
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.OffsetOutOfRange.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	s.fake.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.ListOffsetsRequest)
		if req.Topics[0].Partitions[0].Timestamp != -1 {
			s.fake.KeepControl()
			return nil, nil, false
		}
		if asked.Add(1) == 1 {
			s.fake.KeepControl()
		}
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		rt, rp := kmsg.NewListOffsetsResponseTopic(), kmsg.NewListOffsetsResponseTopicPartition()
		rt.Topic, rp.Offset = req.Topics[0].Topic, end
		if asked.Load() == 1 {
			rp.ErrorCode, rp.Offset = kerr.InvalidRequest.Code, -1
		}
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
}

// What is to be read is beyond the end. As long as the end can't be found nothing is begun anew: that would repeat everything.
func TestALogThatLostItsEndIsReadOnFromThereByItsRange(t *testing.T) {
	for _, tt := range []struct {
		name     string
		end, at  int64
		told     []int64
		produced int
	}{
		{"it ends before what was read", 15, 15, []int64{15}, 0},
		{"producers were quicker than the look", 30, 20, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, "in", "out")
			s.publish("in", 0, 20)
			h := newHandler()
			m := s.member("a", h)
			copyTo(t, m, s.pool("a"), "a", "out", 20)
			s.outOfRange(tt.end)
			s.publish("in", 20, tt.produced)
			if at := next(t, m); at != tt.at {
				t.Errorf("it is read from %d", at)
			}
			if got := h.cuts(); !slices.Equal(got, tt.told) {
				t.Errorf("told of ends at %v", got)
			}
		})
	}
}

// What was settled beyond the end of a log that is shorter now isn't: records that nobody has seen will have these offsets.
func TestWhatWasSettledBeyondTheEndOfALogIsForgottenWithIt(t *testing.T) {
	s := newStand(t, "in")
	s.publish("in", 0, 20)
	h := newHandler()
	m := s.member("a", h)
	h.last(t)
	var settled offsets.Set
	settled.Add(5)
	settled.Add(15) // offset 25 of a log that had more
	md := offsets.Metadata{Node: "a", TopicID: m.TopicID(), Settled: settled}
	if err := s.pool("a").Commit(t.Context(), hop.Tx{Member: m, Generation: m.Generation(), Offsets: map[int32]hop.Position{0: {Offset: 10, Metadata: md.Encode(10)}}}); err != nil {
		t.Fatal(err)
	}
	m.Close()
	again := newHandler()
	s.member("a", again)
	a := again.last(t)
	if a.Offset != 10 || !a.Metadata.Settled.Has(5) || a.Metadata.Settled.Has(15) || a.Own || a.LogEnd != 20 || a.Reached != 26 {
		t.Errorf("%+v", a)
	}
}

// A position beyond the end of the log is of a log that reached further: its owner hears of the loss, once.
func TestAnAssignmentSaysWhatItsLogHasLost(t *testing.T) {
	s := newStand(t, "in")
	s.publish("in", 0, 20)
	var got []int64
	for i := range 3 {
		h := newHandler()
		m := s.member("a", h)
		a := h.last(t)
		got = append(got, a.Offset, a.Reached)
		if i == 0 {
			md := offsets.Metadata{Node: "a", TopicID: m.TopicID()}
			if err := s.pool("a").Commit(t.Context(), hop.Tx{Member: m, Generation: m.Generation(), Offsets: map[int32]hop.Position{0: {Offset: 30, Metadata: md.Encode(30)}}}); err != nil {
				t.Fatal(err)
			}
		}
		m.Close()
	}
	if !slices.Equal(got, []int64{0, 0, 20, 30, 20, 0}) {
		t.Errorf("%v", got)
	}
}
