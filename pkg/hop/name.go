package hop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/pkg/topics"
)

// HoldName holds a node's name until the context ends, or returns ErrReplaced once a newer process holds it. A process
// that is in no agent's group would not learn of that otherwise. The name is a group that consumes nothing, with this
// process as its static member: the coordinator lets the newer one of two in and refuses the older. Whatever else goes
// wrong is tried again, since without the coordinator nobody can take the name either. The membership isn't left, so
// that a restart is no news.
func HoldName(ctx context.Context, cl *kgo.Client, names topics.Names, service, node string, logger *slog.Logger) error {
	h := holder{cl: cl, group: names.NodeGroup(service, node), instance: service + "." + node}
	told := ""
	for {
		err := h.hold(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kerr.FencedInstanceID):
			return ErrReplaced
		case errors.Is(err, kerr.UnknownMemberID):
			h.member = "" // the session had expired, and nobody has the name
		case !kerr.IsRetriable(err) && err.Error() != told:
			told = err.Error()
			logger.Warn("hold the node's name: it is tried again", slog.String("group", h.group), slog.Any("error", err))
		}
		if !sleep(ctx, retryPauseMax) {
			return nil
		}
	}
}

// holder is a member of a group by hand: joining, and heartbeats.
type holder struct {
	cl              *kgo.Client
	group, instance string
	member          string // as the coordinator calls this process; "" before it has joined
}

// The protocol's name says nothing to the coordinator; all of a group have to agree on it.
const holding = "reeve-node"

// hold joins and sends heartbeats until one fails.
func (h *holder) hold(ctx context.Context) error {
	generation, err := h.join(ctx)
	if err != nil {
		return err
	}
	for sleep(ctx, DefaultSession/4) {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.Generation, req.MemberID, req.InstanceID = h.group, generation, h.member, &h.instance
		resp, err := req.RequestWith(ctx, h.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			return fmt.Errorf("confirm the name: %w", err)
		}
	}
	return ctx.Err()
}

func (h *holder) join(ctx context.Context) (generation int32, err error) {
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.MemberID, join.InstanceID, join.ProtocolType = h.group, h.member, &h.instance, holding
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = int32(DefaultSession/time.Millisecond), int32(DefaultSession/time.Millisecond)
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name = holding
	join.Protocols = append(join.Protocols, protocol)
	joined, err := join.RequestWith(ctx, h.cl)
	if err == nil {
		err = kerr.ErrorForCode(joined.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("take the name: %w", err)
	}
	h.member = joined.MemberID
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID, sync.InstanceID = h.group, joined.Generation, h.member, &h.instance
	sync.ProtocolType, sync.Protocol = kmsg.StringPtr(holding), kmsg.StringPtr(holding)
	if joined.LeaderID == h.member {
		nothing := kmsg.NewSyncGroupRequestGroupAssignment()
		nothing.MemberID = h.member
		sync.GroupAssignment = append(sync.GroupAssignment, nothing)
	}
	synced, err := sync.RequestWith(ctx, h.cl)
	if err == nil {
		err = kerr.ErrorForCode(synced.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("take the name: %w", err)
	}
	return joined.Generation, nil
}
