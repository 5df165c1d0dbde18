package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/reeve-run/reeve/internal/egress"
	"github.com/reeve-run/reeve/internal/version"
)

const (
	maxAnswerHeader = 64 << 10
	maxAnswerText   = 1 << 10
	maxDrained      = 16 << 10 // of a body that nobody needs, so that its connection can be used again
	drainLimit      = 500 * time.Millisecond
)

// Sender sends webhooks over HTTP. It is safe for concurrent use.
type Sender struct {
	client  *http.Client
	secrets *Secrets
	timeout time.Duration
	now     func() time.Time
}

// NewSender sends to where the guard lets it, signed with what secrets has. timeout bounds a whole try.
func NewSender(guard *egress.Guard, secrets *Secrets, timeout time.Duration) *Sender {
	return &Sender{
		secrets: secrets, timeout: timeout, now: time.Now,
		client: &http.Client{
			// A redirect leads to where nobody has looked; and a proxy would connect for us, past the guard.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: guard.DialContext, ForceAttemptHTTP2: true, DisableCompression: true, TLSHandshakeTimeout: timeout,
				MaxResponseHeaderBytes: maxAnswerHeader, MaxIdleConnsPerHost: perEndpoint, MaxIdleConns: 128, IdleConnTimeout: 30 * time.Second,
			},
		},
	}
}

// Close gives up connections that are kept for later.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Send tries once.
func (s *Sender) Send(ctx context.Context, w Webhook) Answer {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL.String(), bytes.NewReader(w.Record.Value))
	if err != nil {
		return Answer{Err: unnamed(err)}
	}
	if r.Header, err = s.header(w); err != nil {
		return Answer{Err: err}
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return Answer{Err: unnamed(err)}
	}
	defer func() { _ = resp.Body.Close() }() // what it holds was read or isn't wanted
	defer time.AfterFunc(drainLimit, cancel).Stop()
	a := Answer{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), s.now())}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswerText)) // as much of it as came; the status says all that counts
	if a.Status >= 300 {
		a.Text = strings.ToValidUTF8(string(text), "")
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrained)
	return a
}

// header is that of Standard Webhooks. Without a secret there is no signature.
func (s *Sender) header(w Webhook) (http.Header, error) {
	now := s.now()
	h := http.Header{
		"Content-Type":      {"application/json"},
		"User-Agent":        {"Reeve/" + version.Number},
		"Webhook-Id":        {w.ID},
		"Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)},
	}
	var signatures []string
	for _, signer := range s.secrets.Of(w.URL) {
		signature, err := signer.Sign(w.ID, now, w.Record.Value)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) > 0 {
		h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	return h, nil
}

// unnamed takes the URL out of an error.
func unnamed(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		if u.Timeout() {
			return context.DeadlineExceeded
		}
		return u.Err
	}
	return err
}

// retryAfter reads seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
