package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/reeve-run/reeve/services/registry/api"
)

// numbered is a file of events that say their line, with a blank line behind the first.
func numbered(t *testing.T, events int) string {
	t.Helper()
	var lines strings.Builder
	lines.WriteString("1\n\n")
	for i := 1; i < events; i++ {
		fmt.Fprintf(&lines, "%d\n", i+2)
	}
	path := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// once reports which line of a numbered file isn't published exactly once and in order, or "".
func (f *fake) once(events int) string {
	if len(f.published) != events {
		return fmt.Sprintf("%d published", len(f.published))
	}
	for i, e := range f.published {
		want := number(i + 2)
		if i == 0 {
			want = "1"
		}
		if string(e.Payload.Content) != want {
			return fmt.Sprintf("event %d is %s, want %s", i, e.Payload.Content, want)
		}
	}
	return ""
}

func TestAnInterruptedFileSaysWhereToGoOn(t *testing.T) {
	path := numbered(t, 1200)
	ctx, interrupt := context.WithCancel(t.Context())
	f := newFake()
	f.onBatch = func(n, _ int) api.PublishEventsResponseObject {
		if n == 2 {
			interrupt() // while the batch is under way
		}
		return nil
	}
	server := httptest.NewServer(f.handler())
	defer server.Close()
	s := System{Environ: []string{"REEVE_URL=" + server.URL}}
	got := execute(ctx, s, "publish", "t", "--ndjson", path, "-o", "jsonl")
	if got.code != Failed || !strings.Contains(got.err, "interrupted: published 1000 of 1200 events to t, none of line 1002 or later: go on with --from-line 1002") {
		t.Fatalf("%+v", got)
	}
	var d delivery
	if err := json.Unmarshal([]byte(got.out), &d); err != nil || d.Published != 1000 || d.NextLine != 1002 || d.InDoubt != nil {
		t.Errorf("%+v, %v", d, err)
	}
	got = execute(t.Context(), s, "publish", "t", "--ndjson", path, "--from-line", number(d.NextLine))
	if fault := f.once(1200); got.code != Done || !strings.HasPrefix(got.out, "published 200 events to t") || fault != "" {
		t.Errorf("%s: %+v", fault, got)
	}
}

func TestASignalInterruptsAtABatchsEnd(t *testing.T) {
	path := numbered(t, 1200)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		heard := make(chan struct{})
		var errs strings.Builder
		cmd := exec.CommandContext(t.Context(), self, "publish", "t", "--ndjson", path)
		f := newFake()
		f.onBatch = func(n, _ int) api.PublishEventsResponseObject {
			if n == 2 {
				_ = cmd.Process.Signal(s)
				<-heard // and answers only then
			}
			return nil
		}
		server := httptest.NewServer(f.handler())
		cmd.Env = append(os.Environ(), asReeve+"=1", "REEVE_URL="+server.URL)
		cmd.Stderr = io.MultiWriter(&errs, &onText{text: "waiting for the answer to the 500 events", do: func() { close(heard) }})
		err := cmd.Run()
		server.Close()
		if cmd.ProcessState.ExitCode() != Failed || len(f.published) != 1000 || !strings.Contains(errs.String(), "interrupted: published 1000 of 1200") {
			t.Errorf("%s: %v, %d published: %s", s, err, len(f.published), &errs)
		}
	}
}

func TestAnInterruptBeforeTheFirstEventPublishesNothing(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	in, _ := io.Pipe() // gives nothing, for ever
	for _, s := range []System{{}, {In: in}} {
		file := map[bool]string{true: "-", false: numbered(t, 3)}[s.In != nil]
		got := execute(ctx, s, "publish", "t", "--ndjson", file)
		if got.code != Failed || !strings.Contains(got.err, "interrupted: nothing was published") {
			t.Errorf("%+v", got)
		}
	}
}

func TestARegistryThatDiesInTheMiddleIsAccountedFor(t *testing.T) {
	path := numbered(t, 1200)
	refused := problem(422, "invalid_event")
	for name, tt := range map[string]struct {
		code   int
		says   string
		handle func(f *fake, server *httptest.Server) http.Handler
	}{
		"its answer is lost": {Unreachable, "published 500 of 1200 events to t for certain; the answer for lines 502 to 1001 (500 events) was lost, so they may be published: " +
			"look at the topic (`reeve bus inspect t`), then go on with --from-line 502 to publish them (again), or with --from-line 1002 to leave them out",
			func(f *fake, _ *httptest.Server) http.Handler {
				f.onBatch = func(n, _ int) api.PublishEventsResponseObject {
					if n == 2 {
						panic(http.ErrAbortHandler) // the connection ends, as by a kill -9
					}
					return nil
				}
				return f.handler()
			}},
		"it is gone between batches": {Unreachable, "published 500 of 1200 events to t, none of line 502 or later: go on with --from-line 502",
			func(f *fake, server *httptest.Server) http.Handler {
				next := f.handler()
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Connection", "close")
					_ = server.Listener.Close()
					next.ServeHTTP(w, r)
				})
			}},
		"it refuses a batch": {Failed, "published 500 of 1200 events to t, none of line 502 or later: go on with --from-line 502",
			func(f *fake, _ *httptest.Server) http.Handler {
				f.onBatch = func(n, _ int) api.PublishEventsResponseObject {
					if n == 2 {
						return api.PublishEventsdefaultApplicationProblemPlusJSONResponse{Body: refused, StatusCode: 422}
					}
					return nil
				}
				return f.handler()
			}},
		"its answer is no answer": {Failed, "(500 events) was lost",
			func(f *fake, _ *httptest.Server) http.Handler {
				f.onBatch = func(n, _ int) api.PublishEventsResponseObject {
					if n == 2 {
						return api.PublishEventsdefaultApplicationProblemPlusJSONResponse{Body: problem(500, "internal"), StatusCode: 500}
					}
					return nil
				}
				return f.handler()
			}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			server := httptest.NewUnstartedServer(nil)
			server.Config.Handler = tt.handle(f, server)
			server.Start()
			defer server.Close()
			got := execute(t.Context(), System{Environ: []string{"REEVE_URL=" + server.URL}}, "publish", "t", "--ndjson", path)
			if got.code != tt.code || !strings.Contains(got.err, tt.says) || got.out != "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestEventsThatWereNotTakenAreNamed(t *testing.T) {
	path := numbered(t, 600)
	for name, tt := range map[string]struct {
		bad    []int // of the first batch's 500, from 0
		status int
		says   string
	}{
		"some in the middle": {[]int{0, 3, 4, 5}, 413, "line 1: it is refused\ndo something\npublished 496 of 600 events to t; of those before line 502, 4 were not taken: " +
			"publish them by `sed -n '1p;5,7p' " + path + " | reeve publish t --ndjson -`, and go on with --from-line 502"},
		"the last ones":      {[]int{498, 499}, 413, "published 498 of 600 events to t, none of line 500 or later: go on with --from-line 500"},
		"Kafka is not heard": {[]int{498, 499}, 503, "2 were not confirmed by Kafka and may be published or not: publish them by `sed -n '500,501p'"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.onBatch = func(_, size int) api.PublishEventsResponseObject {
				answer := api.PublishEvents202JSONResponse{Published: size - len(tt.bad), Items: make([]api.PublishResult, size)}
				for i := range answer.Items {
					answer.Items[i].Published = &api.Published{Topic: "t", Offset: int64(i)}
				}
				for _, i := range tt.bad {
					p := problem(tt.status, "refused")
					answer.Items[i] = api.PublishResult{Error: &p}
				}
				return answer
			}
			if got := f.reeve(t, "", "publish", "t", "--ndjson", path); got.code == Done || !strings.Contains(got.err, tt.says) || f.batches != 1 {
				t.Errorf("after %d batches: %+v", f.batches, got)
			}
		})
	}
}

func TestFromLine(t *testing.T) {
	path := numbered(t, 5)
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"--from-line 4":              {Done, "published 3 events to t"},
		"--from-line 7":              {Usage, "has no event from line 7 on: its last is in line 6"},
		"--from-line 0":              {Usage, "are numbered from 1"},
		"--from-line 2 --content {}": {Usage, "say what to publish"},
	} {
		f := newFake()
		got := f.reeve(t, "", append([]string{"publish", "t", "--ndjson", path}, strings.Fields(args)...)...)
		if got.code != want.code || !strings.Contains(got.out+got.err, want.says) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := newFake().reeve(t, "", "publish", "t", "--content", "{}", "--from-line", "2"); got.code != Usage || !strings.Contains(got.err, "--from-line is of --ndjson") {
		t.Errorf("%+v", got)
	}
}

func TestOneEventWhoseAnswerIsLostIsInDoubt(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer server.Close()
	got := execute(t.Context(), System{Environ: []string{"REEVE_URL=" + server.URL}}, "publish", "t", "--content", "1")
	if got.code != Unreachable || !strings.Contains(got.err, "the event may be published all the same") {
		t.Errorf("%+v", got)
	}
}

func TestCtrlCEndsAQuestion(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	in, unblock := io.Pipe()
	defer func() { _ = unblock.Close() }()
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	asked := &onText{text: "Type yes", do: interrupt}
	code := Run(ctx, System{In: in, Out: io.Discard, Err: asked, Terminal: true, Environ: []string{"REEVE_URL=" + server.URL}},
		[]string{"agent", "delete", "t/a", "--delete-dlq"})
	if code != Failed || len(f.deleted) != 0 {
		t.Errorf("exit code %d, deletions %d", code, len(f.deleted))
	}
}

// onText does something when a text is written.
type onText struct {
	text string
	do   func()
}

func (w *onText) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.text) {
		w.do()
	}
	return len(b), nil
}
