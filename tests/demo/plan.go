package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// An agent of the demo, and the rule that says what must become of its tasks.
type agent struct {
	Topic string
	Name  string
	fate  func(d delivery) fate
}

func (a agent) ref() string { return a.Topic + "/" + a.Name }

// fate is what must become of a task.
type fate struct {
	Retries int
	Settled task.Settled
}

// maxRetries is the default of agents.yaml, which no agent of the demo changes.
const maxRetries = 3

var (
	completes = fate{Settled: task.SettledDone}
	// refused is an event that the agent calls invalid_input: no retry.
	refused = fate{Settled: task.SettledDLQ}
	// exhausts fails without a class on every attempt.
	exhausts = fate{Retries: maxRetries, Settled: task.SettledDLQ}
	// recovers fails on its first try with a network error.
	recovers = fate{Retries: 1, Settled: task.SettledDone}
)

// failFirstTry are the endings of delivery ids for which release-notes fails on its first try, as agents.yaml tells it.
const failFirstTry = "08"

// agents lists the demo's agents. Without Node the one that is written in JavaScript is left out.
func agents(node bool) []agent {
	as := []agent{
		{"github.issues", "issue-triage", func(d delivery) fate { return onCut(d, refused) }},
		{"github.issues", "issue-notify", func(d delivery) fate { return onCut(d, exhausts) }},
		{"github.push", "push-stats", func(delivery) fate { return completes }},
		{"github.release", "release-notes", func(d delivery) fate {
			if strings.ContainsAny(d.ID[len(d.ID)-1:], failFirstTry) {
				return recovers
			}
			return completes
		}},
	}
	if node {
		as = append(as, agent{"github.pull_request", "pull-request-size", func(delivery) fate { return completes }})
	}
	return as
}

func onCut(d delivery, f fate) fate {
	if d.Cut {
		return f
	}
	return completes
}

// delivery is one webhook delivery: a line of the events file, or one of its copies.
type delivery struct {
	Event   string          `json:"event"`
	Action  string          `json:"action"`
	ID      string          `json:"delivery"`
	Payload json.RawMessage `json:"payload"`
	// Cut marks the delivery whose body ends in the middle.
	Cut        bool   `json:"-"`
	Repository string `json:"-"`
}

func (d delivery) topic() string { return "github." + d.Event }

// readDeliveries reads the events file, one JSON object a line.
func readDeliveries(r io.Reader) ([]delivery, error) {
	var ds []delivery
	in := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return ds, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read line %d: %w", n, err)
		}
		d, err := parseDelivery(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		ds = append(ds, d)
	}
}

func parseDelivery(line []byte) (delivery, error) {
	var d delivery
	if err := json.Unmarshal(line, &d); err != nil {
		return d, fmt.Errorf("parse delivery: %w", err)
	}
	var p struct {
		Repository struct {
			FullName string `json:"full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(d.Payload, &p); err != nil {
		return d, fmt.Errorf("parse payload: %w", err)
	}
	if d.ID == "" || d.Event == "" || p.Repository.FullName == "" {
		return d, fmt.Errorf("a delivery needs an event, a delivery id and a repository")
	}
	d.Repository = p.Repository.FullName
	return d, nil
}

// plan is what the demo publishes: each delivery that has an agent, copied, in rounds over the whole file, with the cut
// delivery in the middle.
func plan(ds []delivery, as []agent, copies int) []delivery {
	wanted := map[string]bool{}
	for _, a := range as {
		wanted[a.Topic] = true
	}
	var all []delivery
	for copy := 1; copy <= copies; copy++ {
		for _, d := range ds {
			if wanted[d.topic()] {
				d.ID = deliveryID(d.ID, copy)
				all = append(all, d)
			}
		}
		if copy == (copies+1)/2 {
			all = append(all, cutShort(ds)...)
		}
	}
	return all
}

// cutShort is the poison: the first issues delivery, ended in the middle of its body.
func cutShort(ds []delivery) []delivery {
	for _, d := range ds {
		if d.Event == "issues" {
			d.ID, d.Cut, d.Payload = deliveryID(d.ID, 0), true, d.Payload[:len(d.Payload)/2]
			return []delivery{d}
		}
	}
	return nil
}

// deliveryID is the id of a delivery's copy. The first keeps the original's; the others are UUIDv5 (RFC 9562) of
// <delivery>/<copy> in the URL namespace, the same in every run.
func deliveryID(id string, copy int) string {
	if copy == 1 {
		return id
	}
	urls, _ := hex.DecodeString("6ba7b8119dad11d180b400c04fd430c8")
	h := sha1.New() // what UUIDv5 is made of; nothing here is a secret
	h.Write(urls)
	h.Write([]byte(id + "/" + strconv.Itoa(copy)))
	u := h.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// record is the delivery as a webhook bridge would put it on Kafka. Pull requests and releases come through a bridge
// that makes CloudEvents of them, the others as raw bodies with GitHub's own headers: Reeve takes either.
func (d delivery) record() *kgo.Record {
	r := &kgo.Record{Topic: d.topic(), Key: []byte(d.Repository), Value: d.Payload}
	header := func(k, v string) { r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)}) }
	header("content-type", "application/json")
	switch d.Event {
	case "pull_request", "release":
		header("ce_specversion", "1.0")
		header("ce_id", d.ID)
		header("ce_type", "com.github."+d.Event+"."+d.Action)
		header("ce_source", "https://github.com/"+d.Repository)
	default:
		header("x-github-event", d.Event)
		header("x-github-delivery", d.ID)
	}
	return r
}
