// Package rest is the registry's HTTP interface: handlers for what api/openapi.yaml says, one file a resource, problems for
// every error, the key, and the page at /.
package rest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
	"github.com/reeve-run/reeve/services/registry/internal/bus"
	"github.com/reeve-run/reeve/services/registry/internal/commands"
	"github.com/reeve-run/reeve/services/registry/internal/fleet"
	"github.com/reeve-run/reeve/services/registry/internal/health"
	"github.com/reeve-run/reeve/services/registry/internal/history"
	"github.com/reeve-run/reeve/services/registry/internal/orders"
	"github.com/reeve-run/reeve/services/registry/internal/retention"
	"github.com/reeve-run/reeve/services/registry/internal/settings"
	"github.com/reeve-run/reeve/services/registry/internal/wishes"
)

const (
	maxBody = 32 << 20
	// requestLimit bounds everything that a request asks of the database and of Kafka.
	requestLimit = 20 * time.Second
)

// Server answers requests. All fields are required.
type Server struct {
	Agents   *agents.Store
	Fleet    *fleet.Fleet
	Reports  fleet.Store
	History  *history.Store
	Settings *settings.Store
	Bus      *bus.Bus
	Commands *commands.Desk
	Orders   *orders.Store
	Wishes   *wishes.Store
	Names    topics.Names
	Tiers    []time.Duration // the retry tiers
	Node     string          // the registry's own
	// Outlook says what retention will do to the events that wait for an agent, by topic/name.
	Outlook  func(ref string) retention.Outlook
	Health   func(ctx context.Context) (health.Inputs, health.Report)
	Ready    func() error
	Gatherer prometheus.Gatherer
	Auth     bool
	AdminKey string
	// ResultsKeep is how long a result is kept.
	ResultsKeep time.Duration
	Logger      *slog.Logger
	Now         func() time.Time
}

// Handler routes.
func (s *Server) Handler() http.Handler {
	r := gin.New()
	r.HandleMethodNotAllowed, r.ContextWithFallback = true, true
	r.UseRawPath, r.UnescapePathValues = true, true
	r.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, panicked any) { s.fail(c, fmt.Errorf("panic: %v", panicked)) }))
	r.Use(s.limit, s.authorize, s.legible)
	r.NoRoute(func(c *gin.Context) {
		s.fail(c, &bad{status: http.StatusNotFound, code: "route_not_found", detail: "there is nothing at " + c.Request.URL.Path,
			remedy: "see /openapi.yaml for what there is"})
	})
	r.NoMethod(func(c *gin.Context) {
		s.fail(c, &bad{status: http.StatusMethodNotAllowed, code: "method_not_allowed", detail: c.Request.Method + " is not possible on " + c.Request.URL.Path,
			remedy: "see /openapi.yaml for what is"})
	})
	s.plain(r)
	s.dashboard(r)
	failed := func(c *gin.Context, err error) { s.fail(c, err) }
	strict := api.NewStrictHandlerWithOptions(s, []api.StrictMiddlewareFunc{knownKeys}, api.StrictGinServerOptions{
		RequestErrorHandlerFunc:  func(c *gin.Context, err error) { s.fail(c, unreadable(err)) },
		HandlerErrorFunc:         failed,
		ResponseErrorHandlerFunc: failed,
	})
	api.RegisterHandlersWithOptions(r, strict, api.GinServerOptions{ErrorHandler: func(c *gin.Context, err error, _ int) { s.fail(c, unreadable(err)) }})
	return r
}

// plain are the paths that aren't made from the OpenAPI file.
func (s *Server) plain(r *gin.Engine) {
	r.GET("/livez", func(c *gin.Context) { c.String(http.StatusOK, "ok\n") })
	r.GET("/readyz", func(c *gin.Context) {
		if err := s.Ready(); err != nil {
			c.String(http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
		c.String(http.StatusOK, "ok\n")
	})
	r.GET("/metrics", s.scrape())
	r.GET("/openapi.yaml", func(c *gin.Context) { c.Data(http.StatusOK, "application/yaml", api.OpenAPI()) })
}

// open are the paths that need no key: probes, scrapes, the description, and the page, which asks for the key itself.
var open = []string{"/", "/page.css", "/page.js", "/letters.js", "/livez", "/readyz", "/health", "/metrics", "/openapi.yaml"}

// authorize asks for the key. It compares digests, so that the time taken says nothing about the key or its length.
func (s *Server) authorize(c *gin.Context) {
	if !s.Auth || slices.Contains(open, c.Request.URL.Path) {
		return
	}
	given, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
	want, got := sha256.Sum256([]byte(s.AdminKey)), sha256.Sum256([]byte(given))
	if ok && s.AdminKey != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
		return
	}
	c.Header("WWW-Authenticate", `Bearer realm="reeve"`)
	s.fail(c, &bad{status: http.StatusUnauthorized, code: "unauthorized", detail: "the request has no valid key",
		remedy: "send the header Authorization: Bearer <key>; the command line takes the key from REEVE_API_KEY"})
}

// rawBody is the context key of a request's body as it came.
const rawBody = "raw body"

// limit bounds a request's time and body, and keeps the body's bytes for knownKeys. Every answer says the registry's version.
func (s *Server) limit(c *gin.Context) {
	c.Header(version.Header, version.Number)
	ctx, cancel := context.WithTimeout(c.Request.Context(), requestLimit)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	if c.Request.Body != nil && c.Request.Method != http.MethodGet {
		raw, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
		if err != nil {
			s.fail(c, unreadable(err))
			return
		}
		c.Set(rawBody, raw)
		c.Request.Body = io.NopCloser(bytes.NewReader(raw))
	}
	c.Next()
}

// legible refuses what can't be read as text, and NUL in the URL, which the database takes for none.
func (s *Server) legible(c *gin.Context) {
	text := func(what, value string) error {
		if utf8.ValidString(value) && !strings.ContainsRune(value, 0) {
			return nil
		}
		return badRequest("invalid_request", "write UTF-8, without NUL", "%s is no text: %.100q", what, value)
	}
	query, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		err = badRequest("invalid_request", "write special characters of a parameter's value as %XX, and & between parameters", "the query can't be read: %v", err)
	} else {
		err = text("the path", c.Request.URL.Path)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			err = cmp.Or(err, text("the name of a query parameter", name), text("the query parameter "+name, value))
		}
	}
	if raw, _ := c.Get(rawBody); err == nil && raw != nil && !utf8.Valid(raw.([]byte)) {
		err = badRequest("invalid_json", "write it in UTF-8", "the body is no UTF-8")
	}
	if err != nil {
		s.fail(c, err)
	}
}

// knownKeys refuses query parameters and body keys that the operation doesn't have, by name: a misspelt filter that is
// ignored answers with everything.
func knownKeys(next api.StrictHandlerFunc, _ string) api.StrictHandlerFunc {
	return func(c *gin.Context, request any) (any, error) {
		t := reflect.TypeOf(request)
		allowed := []string{}
		if params, ok := t.FieldByName("Params"); ok {
			allowed = tagged(params.Type, "form")
		}
		for key := range c.Request.URL.Query() {
			if !slices.Contains(allowed, key) {
				return nil, unknown("the query parameter", key, allowed)
			}
		}
		if body, ok := t.FieldByName("Body"); ok {
			if err := strictBody(c, body.Type); err != nil {
				return nil, err
			}
		}
		// A copy, because the original is used again for another request while the database's client may still be looking
		// whether this one's context has ended.
		return next(c.Copy(), request)
	}
}

func strictBody(c *gin.Context, t reflect.Type) error {
	raw, _ := c.Get(rawBody)
	b, _ := raw.([]byte)
	switch string(bytes.TrimSpace(b)) {
	case "":
		return nil
	case "null":
		return badRequest("invalid_json", "send one JSON object", "the body is null")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(reflect.New(t.Elem()).Interface())
	if err == nil {
		if d.More() {
			return badRequest("invalid_json", "send one JSON object", "there is something behind the body's JSON object")
		}
		return nil
	}
	if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return unknown("the key", strings.Trim(key, `"`), tagged(t.Elem(), "json"))
	}
	return unreadable(err)
}

func unknown(what, key string, allowed []string) error {
	slices.Sort(allowed)
	remedy := "it takes none"
	if len(allowed) > 0 {
		remedy = "it takes " + strings.Join(allowed, ", ")
	}
	if near := spec.Nearest(key, allowed); near != "" {
		remedy = "did you mean " + near + "? " + remedy
	}
	return &bad{status: http.StatusBadRequest, code: "unknown_key", detail: fmt.Sprintf("%s %q does not exist", what, key), remedy: remedy,
		faults: []api.FieldError{{Field: key, Message: remedy}}}
}

// tagged lists the names in a struct's tags, those of its parts too.
func tagged(t reflect.Type, tag string) []string {
	var out []string
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get(tag), ","); name != "" {
			out = append(out, name)
		}
		if part := t.Field(i).Type; part.Kind() == reflect.Struct && part.PkgPath() == "" {
			out = append(out, tagged(part, tag)...)
		}
	}
	return out
}

// pageSize is a page's length.
func pageSize(asked *int) (int, error) {
	if asked == nil {
		return 100, nil
	}
	if *asked < 1 || *asked > 1000 {
		return 0, badRequest("invalid_request", "give 1 to 1000", "page_size %d is out of range", *asked)
	}
	return *asked, nil
}

// match is the generation in an If-Match header.
func match(header string) (agents.Match, error) {
	if header == "" || header == "*" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(header, "W/"), `"`), 10, 64)
	if err != nil || n < 1 {
		return 0, badRequest("invalid_request", "give an agent's ETag as it came", "If-Match %s is no ETag of an agent", header)
	}
	return agents.Match(n), nil
}

func etag(generation int64) string { return strconv.Quote(strconv.FormatInt(generation, 10)) }
