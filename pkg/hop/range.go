package hop

import (
	"context"
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"
)

// outOfRange goes on where the log is after it turned out not to have what is to be read next: at its start where retention
// has overtaken the consumption, at its end where the log has lost that. It reports whether what was polled is out of date.
// Where the range can't be found, as is likely while a leader is elected, nothing is changed, and the next poll fails again.
func (m *Member) outOfRange(ctx context.Context, p int32) (cut bool) {
	log, err := m.rangeOf(ctx, p)
	if err != nil {
		m.log.Warn("the range of a partition can't be found", slog.String("topic", m.cfg.Topic), slog.Int("partition", int(p)), slog.Any("error", err))
		sleep(ctx, retryPauseMax)
		return false
	}
	switch read := m.readTo(p); {
	case read < log.start:
		m.cfg.Handler.Overtaken(p, read, log.start)
		m.goOn(p, log.start)
	case read > log.end:
		m.lostEnd(ctx, p, read, log.end)
		return true
	default:
		// Producers were quicker than this look, or the broker was behind for a moment.
		m.log.Error("the log didn't reach to what was read of it, and does again: if the broker has lost records, those that took their offsets are passed over",
			slog.String("topic", m.cfg.Topic), slog.Int("partition", int(p)), slog.Int64("read", read), slog.Int64("end", log.end))
		m.goOn(p, read)
	}
	return false
}

// rangeOf gives the range of one partition's log.
func (m *Member) rangeOf(ctx context.Context, p int32) (logRange, error) {
	starts, err := m.adm.ListStartOffsets(ctx, m.cfg.Topic)
	start, ok := starts.Lookup(m.cfg.Topic, p)
	if !ok {
		return logRange{}, errors.Join(errMissing, err)
	}
	ends, err := m.adm.ListCommittedOffsets(ctx, m.cfg.Topic)
	end, ok := ends.Lookup(m.cfg.Topic, p)
	if !ok {
		return logRange{}, errors.Join(errMissing, err)
	}
	return logRange{start.Offset, end.Offset}, errors.Join(start.Err, end.Err)
}

// readTo is the offset behind what was polled of a partition; -1 where nothing is known.
func (m *Member) readTo(p int32) int64 {
	if at, ok := m.cl.UncommittedOffsets()[m.cfg.Topic][p]; ok {
		return at.Offset // behind what was polled, which isn't lost
	}
	if at, ok := m.cl.CommittedOffsets()[m.cfg.Topic][p]; ok {
		return at.Offset // as the client knows it: as of the assignment
	}
	return -1
}

// lostEnd goes on at the end of a log that reached further before. To begin anew would repeat all that it still has, and to
// go on as if nothing had happened would pass over what comes at the offsets that were read already.
func (m *Member) lostEnd(ctx context.Context, p int32, read, end int64) {
	m.log.Error("the log ends before what was read of it: the broker has lost records; going on at its end", slog.String("topic", m.cfg.Topic),
		slog.Int("partition", int(p)), slog.Int64("read", read), slog.Int64("end", end))
	m.goOn(p, m.cfg.Handler.Truncated(ctx, p, end))
}

// goOn makes the client fetch from an offset.
func (m *Member) goOn(p int32, at int64) {
	m.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{m.cfg.Topic: {p: {Epoch: -1, Offset: at}}})
}

// drop takes a partition's records out of what was polled.
func drop(fs kgo.Fetches, p int32) {
	for _, f := range fs {
		for _, t := range f.Topics {
			for i := range t.Partitions {
				if t.Partitions[i].Partition == p {
					t.Partitions[i].Records = nil
				}
			}
		}
	}
}
