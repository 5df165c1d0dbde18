package spec

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var testTiers = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute, time.Hour}

// checked reads and checks the config of an agent; it gives its delays, or what is wrong.
func checked(config string, tiers []time.Duration) string {
	a, faults := ParseEntry([]byte(`{"topic":"a","command":"x","config":` + config + `}`))
	if len(faults) == 0 {
		faults = a.Check(tiers)
	}
	var all []string
	for _, f := range faults {
		all = append(all, f.Field+" "+f.Message)
	}
	if len(all) == 0 {
		return strings.Join(a.Config.RetryDelays, " ")
	}
	return strings.Join(all, "; ")
}

func TestABackoffBecomesTiersOrIsRefusedWithTheNearest(t *testing.T) {
	for config, want := range map[string]string{
		`{"backoff":{"base":"1s","factor":5,"max":"5s"}}`:                            "1s 5s",
		`{"backoff":{"base":"1s","factor":2,"max":"30s"}}`:                           "1s 5s 5s 30s",
		`{"backoff":{"base":1,"factor":10,"max":300}}`:                               "1s 30s 5m",
		`{"backoff":{"base":"5s","factor":6}}`:                                       "5s 30s 5m 1h",
		`{"backoff":{"base":"30s","factor":1}}`:                                      "30s",
		`{"backoff":{"base":"5m","max":"5m"}}`:                                       "5m",
		`{"backoff":null}`:                                                           "1s 5s 30s",
		`{"backoff":{"base":"1s","factor":5,"max":"5s"},"retry_delays":["1s","5s"]}`: "1s 5s", // as the registry gave it
		`{"backoff":{"base":"1s"},"retry_delays":["1s"]}`:                            "config.backoff makes the delays 1s, 5s, 5s, 30s, 30s, 5m, 5m, 5m, 5m, 1h, retry_delays has others",
		`{"backoff":{}}`:                                    "config.backoff.base is missing: give the delay before the first retry",
		`{"backoff":{"base":"2s"}}`:                         "config.backoff.base 2s is no retry tier of this installation, the nearest are 1s and 5s: use 1s, 5s, 30s, 5m, 1h",
		`{"backoff":{"base":"100ms"}}`:                      "config.backoff.base 100ms is no retry tier of this installation, the nearest is 1s",
		`{"backoff":{"base":"1s","max":"2h"}}`:              "config.backoff.max 2h is no retry tier of this installation, the nearest is 1h",
		`{"backoff":{"base":"soon"}}`:                       `config.backoff.base "soon" is no duration`,
		`{"backoff":{"base":"30s","max":"5s"}}`:             "config.backoff.max 5s is less than base, 30s",
		`{"backoff":{"base":"1s","factor":0.5}}`:            "config.backoff.factor 0.5 is out of range: give 1 to 1000",
		`{"backoff":{"base":"1s","factor":1,"max":"5s"}}`:   "config.backoff.factor 1 never gets from 1s to 5s",
		`{"backoff":{"base":"1s","factor":1.01}}`:           "config.backoff.factor 1.01 takes more than 64 steps from 1s to 1h",
		`{"retry_delays":["2m"]}`:                           "config.retry_delays 2m is no retry tier of this installation, the nearest are 30s and 5m",
		`{"retry_delays":["2h"]}`:                           "config.retry_delays 2h is no retry tier of this installation, the nearest is 1h",
		`{"retry_delays":["0s"]}`:                           "config.retry_delays 0s is no retry tier of this installation, the nearest is 1s",
		`{"retry_delays":[]}`:                               "config.retry_delays is empty: give at least one delay of 1s, 5s, 30s, 5m, 1h",
		`{"max_retries":0}`:                                 "1s 5s 30s",
		`{"max_retries":-1}`:                                "config.max_retries -1 is out of range",
		`{"ordering":"strict","retry_delays":["5s", "5s"]}`: "5s 5s",
		`{"ordering":"sorted"}`:                             `config.ordering "sorted" is unknown: use none, key or strict`,
	} {
		if got := checked(config, testTiers); !strings.HasPrefix(got, want) {
			t.Errorf("%s\n got %s\nwant %s", config, got, want)
		}
	}
}

// Who reads a file may not know the installation's tiers: the registry does.
func TestWithoutTiersDelaysAreOnlyRead(t *testing.T) {
	for config, want := range map[string]string{
		`{"backoff":{"base":"2s"}}`:    "",
		`{"retry_delays":["2s"]}`:      "2s",
		`{"backoff":{"base":"2 s"}}`:   `config.backoff.base "2 s" is no duration`,
		`{"retry_delays":["tomorow"]}`: `config.retry_delays "tomorow" is no duration`,
	} {
		if got := checked(config, nil); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: got %s, want %s", config, got, want)
		}
	}
}

// A record of control from before there was a back-off reads as ever, and without one nothing new is written.
func TestAConfigWithoutABackoffIsWrittenAsEver(t *testing.T) {
	b, err := json.Marshal(NewConfig(Python))
	if err != nil || strings.Contains(string(b), "backoff") {
		t.Errorf("%s, %v", b, err)
	}
	var c Config
	if err := json.Unmarshal([]byte(`{"max_retries":3,"retry_delays":["1s"],"backoff":{"base":1,"factor":2}}`), &c); err != nil || c.Backoff.Base != "1" || len(c.Delays()) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}
