package rest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/deadletter"
	"github.com/reeve-run/reeve/pkg/filter"
	"github.com/reeve-run/reeve/pkg/route"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
	"github.com/reeve-run/reeve/services/registry/internal/orders"
)

const (
	// maxScanned is how many dead letters are looked at for one request; a time limit ends it before.
	maxScanned = math.MaxInt
	// maxOrders is how many orders a list has.
	maxOrders = 100
)

// RedriveDeadLetters sends dead letters to their agent once more.
func (s *Server) RedriveDeadLetters(ctx context.Context, r api.RedriveDeadLettersRequestObject) (api.RedriveDeadLettersResponseObject, error) {
	o, accepted, err := s.redrive(ctx, r.Topic, r.Name, *r.Body, "")
	if err != nil || !accepted {
		return api.RedriveDeadLetters200JSONResponse(o), err
	}
	return api.RedriveDeadLetters202JSONResponse(o), nil
}

// redrive orders a redrive, and reports whether there is anything to carry out. The reason rides along in the command.
func (s *Server) redrive(ctx context.Context, topic, name string, r api.RedriveRequest, reason string) (api.DLQOrder, bool, error) {
	c, err := s.orderOf(ctx, command.Redrive, topic, name, r.Origin, r.Fingerprint, r.All)
	if err != nil {
		return api.DLQOrder{}, false, err
	}
	row, err := s.Agents.Get(ctx, topic, name)
	if errors.Is(err, agents.ErrNotFound) || err == nil && row.Phase == spec.Terminated {
		return api.DLQOrder{}, false, &bad{status: http.StatusConflict, code: "agent_deleted", detail: fmt.Sprintf("the agent %s/%s is deleted, so nobody would run what is redriven", topic, name),
			remedy: "register the agent again, its dead letters are still there; or purge them"}
	}
	if err != nil {
		return api.DLQOrder{}, false, err
	}
	c.Reason, c.Dead.Force = reason, r.Force
	return s.order(ctx, c, r.DryRun)
}

// PurgeDeadLetters deletes dead letters.
func (s *Server) PurgeDeadLetters(ctx context.Context, r api.PurgeDeadLettersRequestObject) (api.PurgeDeadLettersResponseObject, error) {
	c, err := s.orderOf(ctx, command.Purge, r.Topic, r.Name, r.Body.Origin, r.Body.Fingerprint, r.Body.All)
	if err != nil {
		return nil, err
	}
	o, accepted, err := s.order(ctx, c, r.Body.DryRun)
	if err != nil || !accepted {
		return api.PurgeDeadLetters200JSONResponse(o), err
	}
	return api.PurgeDeadLetters202JSONResponse(o), nil
}

// orderOf reads which dead letters are meant.
func (s *Server) orderOf(ctx context.Context, verb command.Verb, topic, name, id, fingerprint string, all bool) (command.Command, error) {
	if err := oneWay("origin, fingerprint and all", id != "", fingerprint != "", all); err != nil {
		return command.Command{}, err
	}
	if id != "" {
		o, err := task.ParseOrigin(id)
		if err != nil {
			return command.Command{}, badRequest("invalid_request", "write topic/partition/offset", "%v", err)
		}
		if o.Topic != topic {
			return command.Command{}, badRequest("invalid_request", "name an event of "+topic, "the event %s is none of the agent's topic", id)
		}
	}
	if err := s.known(ctx, topic, name); err != nil {
		return command.Command{}, err
	}
	return command.Command{Verb: verb, Topic: topic, Agent: name, Task: id, Actor: admin.Name, Dead: &command.Dead{All: all, Fingerprint: fingerprint}}, nil
}

// oneWay checks that dead letters are named in one way.
func oneWay(ways string, given ...bool) error {
	n := 0
	for _, is := range given {
		if is {
			n++
		}
	}
	if n != 1 {
		return badRequest("invalid_request", "give exactly one of "+ways, "the body names dead letters in %d ways", n)
	}
	return nil
}

// order counts what is meant, and has it carried out unless it is none or nothing is to be done.
func (s *Server) order(ctx context.Context, c command.Command, dryRun bool) (api.DLQOrder, bool, error) {
	g, err := s.Bus.Graves(ctx, c.Topic, c.Agent)
	if err != nil {
		return api.DLQOrder{}, false, &Unreached{err}
	}
	c.Dead.Ends, c.Dead.TopicID = g.Ends(), g.TopicID
	m, complete, err := s.meant(ctx, g, c)
	if err != nil {
		return api.DLQOrder{}, false, err
	}
	now := s.Now()
	o := orders.Order{Topic: c.Topic, Name: c.Agent, Verb: string(c.Verb), Command: &c, Matched: m.Matched, Guarded: m.Guarded, Unfit: m.Unfit, RequestedBy: c.Actor, RequestedAt: now, UpdatedAt: now, State: "dry_run"}
	if !complete {
		o.Reason = fmt.Sprintf("there are too many dead letters to look at all of them within %s: of those looked at %d are meant", countLimit, m.Matched)
	}
	if dryRun {
		return dlqOrder(o), false, nil
	}
	if m.Matched == 0 && complete {
		o.State, o.Reason = "done", "no open dead letter is meant: nothing is done"
		if c.OfWebhooks() {
			o.Reason = "no webhook that was given up is meant: nothing is done"
		}
		if c.OfOne() {
			return dlqOrder(o), false, s.seenBefore(ctx, c)
		}
		return dlqOrder(o), false, nil
	}
	c.ID = uuid.NewString()
	o.ID, o.State = c.ID, orders.Accepted
	if err := s.Orders.Add(ctx, c, m, now); err != nil {
		return api.DLQOrder{}, false, err
	}
	if _, _, err := s.Commands.Issue(ctx, c, command.MaxLife, 0); err != nil {
		return api.DLQOrder{}, false, errors.Join(&Unreached{err}, s.Orders.Drop(context.WithoutCancel(ctx), c.ID))
	}
	return dlqOrder(o), true, nil
}

// meant counts the open dead letters that an order means, and those that it leaves. It isn't complete where there are more than
// can be looked at for one request: an order means them all the same.
func (s *Server) meant(ctx context.Context, g bus.Graves, c command.Command) (m orders.Meant, complete bool, err error) {
	unfit, err := s.unfit(ctx, c)
	if err != nil {
		return m, false, err
	}
	complete, err = s.eachDead(ctx, countLimit, g, maxScanned, func(rec *kgo.Record) {
		switch choice := deadletter.Choose(c, rec); {
		case choice == deadletter.Guarded:
			m.Guarded++
		case choice == deadletter.Take && unfit(rec):
			m.Unfit++
		case choice == deadletter.Take:
			m.Matched++
		}
	})
	return m, complete, err
}

// unfit tells which dead letters an order leaves because their agent as it is now doesn't take them.
func (s *Server) unfit(ctx context.Context, c command.Command) (func(*kgo.Record) bool, error) {
	if !deadletter.Leaves(c) {
		return func(*kgo.Record) bool { return false }, nil
	}
	row, err := s.Agents.Get(ctx, c.Topic, c.Agent)
	if err != nil {
		return nil, err
	}
	gate, err := route.NewGate(row.Agent, compile)
	if err != nil {
		return nil, err
	}
	return func(rec *kgo.Record) bool { return route.Unfit(row.Agent, gate, rec).Class != "" }, nil
}

// eachDead hands on open dead letters, at most so many and for so long; complete says that these are all.
func (s *Server) eachDead(ctx context.Context, limit time.Duration, g bus.Graves, most int, each func(*kgo.Record)) (complete bool, err error) {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	complete, err = s.Bus.EachDead(short, g, most, each)
	switch {
	case err == nil:
		return complete, nil
	case short.Err() != nil && ctx.Err() == nil:
		return false, nil
	}
	return false, &Unreached{err}
}

// seenBefore is nil where it is known what was named: then it was redriven or purged, and to ask twice is fine.
func (s *Server) seenBefore(ctx context.Context, c command.Command) error {
	if c.OfWebhooks() && hasControl(c.Dead.Webhook) {
		return noDeadWebhook(c.Dead.Webhook)
	}
	if c.OfWebhooks() {
		known, err := s.Orders.Named(ctx, c.Dead.Webhook)
		if err == nil && !known {
			known, err = s.Reports.KnowsWebhook(ctx, c.Dead.Webhook)
		}
		if err == nil && !known {
			err = noDeadWebhook(c.Dead.Webhook)
		}
		return err
	}
	o, err := task.ParseOrigin(c.Task)
	if err != nil {
		return err
	}
	rows, err := s.History.Task(ctx, c.Topic, c.Agent, o.Partition, o.Offset)
	if err == nil && len(rows) == 0 {
		err = s.noDeadLetter(c.Topic, c.Agent, c.Task)
	}
	return err
}

func dlqOrder(o orders.Order) api.DLQOrder {
	out := api.DLQOrder{Id: o.ID, Topic: o.Topic, Name: o.Name, Verb: api.DLQOrderVerb(o.Verb), State: api.DLQOrderState(o.State), Reason: o.Reason, Matched: o.Matched,
		Guarded: o.Guarded, Unfit: o.Unfit, Moved: o.Moved, Completed: o.Completed, CameBack: o.CameBack, Kept: o.Kept, RequestedBy: o.RequestedBy, RequestedAt: utc(o.RequestedAt), UpdatedAt: utc(o.UpdatedAt)}
	if c := o.Command; c != nil && c.Dead != nil {
		out.Origin, out.Fingerprint, out.All, out.Force = c.Task, c.Dead.Fingerprint, c.Dead.All, c.Dead.Force
		out.WebhookId, out.Endpoint = c.Dead.Webhook, c.Dead.Endpoint
	}
	return out
}

// ListDLQOrders lists the latest orders about an agent's dead letters.
func (s *Server) ListDLQOrders(ctx context.Context, r api.ListDLQOrdersRequestObject) (api.ListDLQOrdersResponseObject, error) {
	if err := s.known(ctx, r.Topic, r.Name); err != nil {
		return nil, err
	}
	items, err := s.ordersOf(ctx, r.Topic, r.Name)
	if err != nil {
		return nil, err
	}
	return api.ListDLQOrders200JSONResponse{Items: items}, nil
}

// ordersOf gives the latest orders about dead letters.
func (s *Server) ordersOf(ctx context.Context, topic, name string) ([]api.DLQOrder, error) {
	rows, err := s.Orders.List(ctx, topic, name, maxOrders)
	if err != nil {
		return nil, err
	}
	out := make([]api.DLQOrder, len(rows))
	for i, o := range rows {
		out[i] = dlqOrder(o)
	}
	return out, nil
}

// GetDLQOrder gives one.
func (s *Server) GetDLQOrder(ctx context.Context, r api.GetDLQOrderRequestObject) (api.GetDLQOrderResponseObject, error) {
	o, err := s.knownOrder(ctx, r.Topic, r.Name, r.Id)
	if err != nil {
		return nil, err
	}
	return api.GetDLQOrder200JSONResponse(dlqOrder(o)), nil
}

// CancelDLQOrder takes an order back.
func (s *Server) CancelDLQOrder(ctx context.Context, r api.CancelDLQOrderRequestObject) (api.CancelDLQOrderResponseObject, error) {
	o, accepted, err := s.takeBack(ctx, r.Topic, r.Name, r.Id, r.Params.Reason)
	if err != nil || !accepted {
		return api.CancelDLQOrder200JSONResponse(o), err
	}
	return api.CancelDLQOrder202JSONResponse(o), nil
}

// takeBack takes an order back, and reports whether there is anything left of it to take back.
func (s *Server) takeBack(ctx context.Context, topic, name, id, why string) (api.DLQOrder, bool, error) {
	if _, err := because(why); err != nil {
		return api.DLQOrder{}, false, err
	}
	o, err := s.knownOrder(ctx, topic, name, id)
	if err != nil {
		return api.DLQOrder{}, false, err
	}
	c := command.Command{ID: "cancel " + o.ID, Verb: command.CancelOrder, Order: o.ID, Topic: topic, Agent: name, Actor: admin.Name, Reason: why}
	open, err := s.Orders.TakeBack(ctx, c, s.Now())
	if err != nil {
		return api.DLQOrder{}, false, err
	}
	if !open {
		if o, err = s.knownOrder(ctx, topic, name, id); err != nil { // it may have ended just now
			return api.DLQOrder{}, false, err
		}
		if o.State == status.OrderCancelled {
			return dlqOrder(o), false, nil
		}
		_, list := aboutOrders(topic, name)
		return api.DLQOrder{}, false, &bad{status: http.StatusConflict, code: "order_ended", detail: fmt.Sprintf("the %s %s has ended: it is %s", o.Verb, o.ID, o.State),
			remedy: "what it has moved stays moved; see GET " + list + "/" + o.ID}
	}
	if _, _, err := s.Commands.Issue(ctx, c, command.MaxLife, 0); err != nil {
		return api.DLQOrder{}, false, &Unreached{err} // it is issued again, as all that hasn't ended
	}
	return dlqOrder(o), true, nil
}

func (s *Server) knownOrder(ctx context.Context, topic, name, id string) (orders.Order, error) {
	o, err := s.Orders.Get(ctx, topic, name, id)
	if errors.Is(err, orders.ErrNotFound) {
		what, list := aboutOrders(topic, name)
		err = notFound(fmt.Sprintf("there is no order %s about %s", id, what), "see GET "+list+"; an order is kept for 30 days")
	}
	return o, err
}

// aboutOrders says what orders are about, and where they are listed.
func aboutOrders(topic, name string) (what, list string) {
	if (command.Command{Topic: topic, Agent: name}).OfWebhooks() {
		return "webhooks", "/v1/webhooks/dlq/orders"
	}
	return "dead letters of " + topic + "/" + name, "/v1/dlq/" + topic + "/" + name + "/orders"
}

// compile makes a gate's filter.
func compile(expression string) (route.Filter, error) { return filter.Compile(expression) }
