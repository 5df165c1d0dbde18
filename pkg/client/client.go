package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultURL is where a registry listens whose environment says nothing.
const DefaultURL = "http://127.0.0.1:8765"

// maxProblem bounds what is read of an error's answer.
const maxProblem = 1 << 20

// Config is where the registry is and how it is talked to.
type Config struct {
	// URL is the registry's. Defaults to DefaultURL.
	URL string
	// Key is sent as a bearer token. Defaults to none, which is enough for a registry with REEVE_AUTH=off.
	Key string
	// HTTP does the requests. Defaults to a client without a time limit of its own: give a context.
	HTTP *http.Client
}

// New makes a client. It doesn't connect.
func New(c Config) (*ClientWithResponses, error) {
	if c.URL == "" {
		c.URL = DefaultURL
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no URL of a registry: give it as %s", c.URL, DefaultURL)
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Transport: transport()}
	}
	return NewClientWithResponses(c.URL, WithHTTPClient(&doer{http: c.HTTP, url: c.URL}), WithRequestEditorFn(omitEmpty), WithRequestEditorFn(authorize(c.Key)))
}

// transport keeps enough connections for publishing many batches at a time.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	t.IdleConnTimeout = 30 * time.Second
	return t
}

// omitEmpty takes out the parameters that weren't given: the generated code sends them empty, which is another thing
// than not at all.
func omitEmpty(_ context.Context, r *http.Request) error {
	query := r.URL.Query()
	for name := range query {
		if query.Get(name) == "" {
			query.Del(name)
		}
	}
	r.URL.RawQuery = query.Encode()
	for name := range r.Header {
		if r.Header.Get(name) == "" {
			r.Header.Del(name)
		}
	}
	return nil
}

func authorize(key string) RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		return nil
	}
}

// doer turns answers that are errors into errors.
type doer struct {
	http *http.Client
	url  string
}

func (d *doer) Do(r *http.Request) (*http.Response, error) {
	resp, err := d.http.Do(r)
	if err != nil {
		if ctxErr := r.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		return nil, &UnreachableError{URL: d.url, Err: unwrapURL(err)}
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode < 400 || kind == "application/json" {
		return resp, nil // /health says 503 with a body that is no problem
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return nil, &UnreachableError{URL: d.url, Err: fmt.Errorf("read answer: %w", err)}
	}
	return nil, problem(resp.StatusCode, kind, body)
}

// problem reads an error's answer; one that isn't Reeve's becomes a problem all the same.
func problem(status int, kind string, body []byte) *ProblemError {
	var p Problem
	if kind == "application/problem+json" && json.Unmarshal(body, &p) == nil && p.Code != "" {
		return &ProblemError{Problem: p}
	}
	text, _, _ := bytes.Cut(bytes.TrimSpace(body), []byte("\n"))
	return &ProblemError{Problem: Problem{
		Status: status,
		Title:  http.StatusText(status),
		Code:   "unexpected_answer",
		Detail: fmt.Sprintf("the answer is no Reeve registry's: HTTP %d %.200q", status, text),

		Remediation: "check that the URL is the registry's, and what stands between",
	}}
}

// unwrapURL takes off net/http's own words, which repeat method and URL.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// ProblemError is an error that the registry answered.
type ProblemError struct{ Problem }

func (e *ProblemError) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	if e.Detail == "" {
		b.WriteString(e.Title)
	}
	for _, f := range e.Errors {
		if said := f.Field + ": " + f.Message; said != e.Detail { // of one fault the detail is all there is to say
			b.WriteString("\n  " + said)
		}
	}
	if e.Remediation != "" {
		b.WriteString("\n" + e.Remediation)
	}
	return b.String()
}

// UnreachableError says that no answer came.
type UnreachableError struct {
	URL string
	Err error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("no answer from %s: %v", e.URL, e.Err) }

func (e *UnreachableError) Unwrap() error { return e.Err }

// Code is the code of the problem that an error is, or "".
func Code(err error) string {
	var p *ProblemError
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}
