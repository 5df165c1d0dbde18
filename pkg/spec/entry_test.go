package spec

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseEntryFillsInDefaults(t *testing.T) {
	a, faults := ParseEntry([]byte(`{"topic":"file.uploaded","runtime":"python","callback":"callback:handle"}`))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	want := &Agent{Topic: "file.uploaded", Name: "file_uploaded_agent", Version: DefaultVersion, Tags: []string{}, Runtime: Python, Callback: "callback:handle",
		Config: NewConfig(Python), Process: NewProcess(), Pool: Pool{1, 1}, Partitions: DefaultPartitions}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("got %+v, want %+v", a, want)
	}
}

func TestParseEntryTakesEverySpelling(t *testing.T) {
	for in, check := range map[string]func(a *Agent) bool{
		`{"topic":"a","callback":"callback.py:handle"}`:                                    func(a *Agent) bool { return a.Runtime == Python },
		`{"topic":"a","callback":"callback.mjs:handle"}`:                                   func(a *Agent) bool { return a.Runtime == Node },
		`{"topic":"a","command":"./agent","args":["-v"]}`:                                  func(a *Agent) bool { return a.Runtime == Command && len(a.Command) == 2 },
		`{"topic":"a","command":["./agent"]}`:                                              func(a *Agent) bool { return a.Config.Concurrency == 1 },
		`{"topic":"a","runtime":"python","callback_module":"callbacks.process_file"}`:      func(a *Agent) bool { return a.Callback == "callbacks:process_file" },
		`{"topic":"a","runtime":"python","callback_module":"callbacks:process_file"}`:      func(a *Agent) bool { return a.Callback == "callbacks:process_file" },
		`{"topic":"a","runtime":"python","agent_dir":"x","callback_function":"f"}`:         func(a *Agent) bool { return a.Dir == "x" && a.Callback == "callback:f" },
		`{"topic":"a","command":"x","process":{"restart_on_exit":false}}`:                  func(a *Agent) bool { return a.Process.RestartPolicy == RestartNever },
		`{"topic":"a","command":"x","process":{"request_timeout":"infinity"}}`:             func(a *Agent) bool { return a.Process.RequestTimeout.Infinite() },
		`{"topic":"a","command":"x","pool":{"min":3,"warm":0}}`:                            func(a *Agent) bool { return a.Pool == Pool{3, 3} },
		`{"topic":"a","command":"x","description":null,"config":null}`:                     func(a *Agent) bool { return a.Description == nil },
		`{"topic":"a","command":"x","config":{"retry_delays":["5s"],"dlq_enabled":false}}`: func(a *Agent) bool { return len(a.Config.RetryDelays) == 1 && !a.Config.DLQEnabled },
	} {
		a, faults := ParseEntry([]byte(in))
		if len(faults) > 0 || !check(a) {
			t.Errorf("%s: got %+v, faults %v", in, a, faults)
		}
	}
}

func TestParseEntryNamesEveryFault(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                         ": an agent is an object of keys and values, this is a list",
		`{"name":"x","command":"x"}`: "topic: is missing",
		`{"topic":"a","command":"x","env":{"A":"\\\u0000"}}`: "env: has a NUL character: leave it out",
		`{"topic":"a"}`:                                                                           "callback: is missing",
		`{"topic":"a","callback":"c:h"}`:                                                          "runtime: is missing",
		`{"topic":"a","command":"x","nmae":"y"}`:                                                  "nmae: is no key of an agent (did you mean name?)",
		`{"topic":"a","command":"x","canary":1}`:                                                  "canary: is not carried out by this version",
		`{"topic":"a","command":"x","config":{"max_retry":1}}`:                                    "config.max_retry: is no key of config (did you mean max_retries?)",
		`{"topic":"a","command":"x","config":{"max_retries":"many"}}`:                             `config.max_retries: is "many": give a whole number`,
		`{"topic":"a","command":"x","config":{"backoff":{"bse":1}}}`:                              "config.backoff.bse: is no key of backoff (did you mean base?)",
		`{"topic":"a","command":"x","config":{"backoff":{"base":[]}}}`:                            "config.backoff.base: [] is neither a duration",
		`{"topic":"a","command":"x","config":{"backoff":"fast"}}`:                                 "config.backoff: backoff is an object",
		`{"topic":"a","command":"x","version":1}`:                                                 "version: is 1: give a text",
		`{"topic":"a","command":"x","pool":{"warm":1}}`:                                           "pool.warm: is not carried out",
		`{"topic":"a","command":{}}`:                                                              "command: is an object",
		`{"topic":"a","args":["x"],"runtime":"command"}`:                                          "args: belong to command",
		`{"topic":"a","runtime":"node","callback":"a:b","command":"x"}`:                           "command: belongs to runtime command",
		`{"topic":"a","command":"x","process":{"restart_on_exit":true,"restart_policy":"never"}}`: "process.restart_on_exit: true and restart_policy never contradict",
		`{"topic":"a","runtime":"python","callback":"a:b","callback_module":"c:d"}`:               "callback: is given twice",
		`{"topic":"a","runtime":"python","callback":"a:b","dir":"x","agent_dir":"y"}`:             "agent_dir: and dir name two directories",
	} {
		_, faults := ParseEntry([]byte(in))
		var all []string
		for _, f := range faults {
			all = append(all, f.Field+": "+f.Message)
		}
		if got := strings.Join(all, "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestAFunctionOfAGoProgramHasNoProcess(t *testing.T) {
	for in, want := range map[string]string{
		`{"topic":"a","runtime":"sdk","config":{"concurrency":64},"process":{"request_timeout":5,"drain_timeout":1}}`: "",
		`{"topic":"a","runtime":"sdk","callback":"a:b"}`:                                                              "callback: is about processes",
		`{"topic":"a","runtime":"sdk","dir":"x"}`:                                                                     "dir: is about processes",
		`{"topic":"a","runtime":"sdk","env":{"A":"b"}}`:                                                               "env: is about processes",
		`{"topic":"a","runtime":"sdk","pool":{"min":2}}`:                                                              "pool: is about processes",
		`{"topic":"a","runtime":"sdk","process":{"max_restart_attempts":9}}`:                                          "process: of a Go program's function",
	} {
		a, faults := ParseEntry([]byte(in))
		if len(faults) == 0 {
			faults = a.Check([]time.Duration{time.Second, 5 * time.Second, 30 * time.Second})
		}
		got := ""
		for _, f := range faults {
			got += f.Field + ": " + f.Message
		}
		if want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"topic":"a","command":["x"],"config":{"max_retries":1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if a, _ := ParseEntry(raw); a == nil {
			t.Error("no agent")
		}
	})
}

func TestAWebhookIsAnHTTPURL(t *testing.T) {
	for url, ok := range map[string]bool{"http://h": true, "https://h:8443/p?q=1": true, "": false, "h": false, "ftp://h": false, "https://": false, "http://:80": false,
		"javascript:alert(1)": false, "http://u:p@h": false, "http://u@h": false, "http://h#f": false, "http://h#": false, "http://h:0": false, "http://h:65536": false, "http://h:65535": true, "http://[::1]:8080/": true, "file:///etc/passwd": false, "http:/h": false} {
		if err := CheckWebhook(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}
