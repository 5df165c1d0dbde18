package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// projectionLimit is how long the registry's figures may lag behind the outcomes topic.
const projectionLimit = 15 * time.Second

// compareFigures asks the registry for its counters until they equal those of the outcomes topic, and says where they
// still differ at the limit.
func compareFigures(ctx context.Context, dev *devProcess, reeve string, want map[string]figures) ([]string, error) {
	limit := time.NewTimer(projectionLimit)
	defer limit.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		var out bytes.Buffer
		if err := dev.cli(ctx, reeve, &out, "metrics", "-o", "json"); err != nil {
			return nil, err
		}
		got, err := readFigures(out.Bytes())
		if err != nil {
			return nil, err
		}
		differences := differ(got, want)
		if len(differences) == 0 {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit.C:
			return differences, nil
		case <-tick.C:
		}
	}
}

// readFigures reads what `reeve metrics -o json` prints.
func readFigures(b []byte) (map[string]figures, error) {
	var list struct {
		Items []struct {
			Topic string `json:"topic"`
			Name  string `json:"name"`
			figures
		} `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("parse the output of reeve metrics: %w", err)
	}
	all := map[string]figures{}
	for _, a := range list.Items {
		all[a.Topic+"/"+a.Name] = a.figures
	}
	return all, nil
}

// upLimit is how long the agents may take to come up; a cold Python on a busy machine takes seconds.
const upLimit = 30 * time.Second

// awaitAgents waits until every agent has a running process, and names those that have none.
func awaitAgents(ctx context.Context, dev *devProcess, reeve string, as []agent) error {
	limit := time.NewTimer(upLimit)
	defer limit.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		var out bytes.Buffer
		if err := dev.cli(ctx, reeve, &out, "agent", "list", "-o", "json"); err != nil {
			return err
		}
		down, err := notRunning(out.Bytes(), as)
		if err != nil || len(down) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("no process runs after %v of: %s: see %s", upLimit, strings.Join(down, ", "), dev.logPath)
		case <-tick.C:
		}
	}
}

// notRunning reads what `reeve agent list -o json` prints.
func notRunning(b []byte, as []agent) ([]string, error) {
	var list struct {
		Items []struct {
			Topic     string `json:"topic"`
			Name      string `json:"name"`
			Phase     string `json:"phase"`
			Instances int    `json:"instances"`
		} `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("parse the output of reeve agent list: %w", err)
	}
	down := map[string]string{}
	for _, a := range as {
		down[a.ref()] = a.ref() + " (not registered)"
	}
	for _, it := range list.Items {
		if it.Instances > 0 && it.Phase == "active" {
			delete(down, it.Topic+"/"+it.Name)
		} else if ref := it.Topic + "/" + it.Name; down[ref] != "" {
			down[ref] = fmt.Sprintf("%s (%s)", ref, it.Phase)
		}
	}
	return slices.Sorted(maps.Values(down)), nil
}

func differ(got, want map[string]figures) []string {
	var ds []string
	for _, ref := range slices.Sorted(maps.Keys(want)) {
		if got[ref] != want[ref] {
			ds = append(ds, fmt.Sprintf("%s: the registry counts %+v, the outcomes on Kafka %+v", ref, got[ref], want[ref]))
		}
	}
	return ds
}
