package event

import (
	"errors"
	"strings"
	"testing"
)

func TestTheTypeOfATaskIsTheFirstThatIsSaid(t *testing.T) {
	const envelope = `{"topic":"orders","type":"of the envelope","payload":{"content":{"type":"of the content"}}}`
	cloud := []string{"ce_specversion", "1.0", "ce_id", "1", "ce_source", "/s", "ce_type", "of the CloudEvent"}
	for _, c := range []struct {
		name, value string
		headers     []string
		want        string
	}{
		{"a CloudEvent's", `{"type":"of the content"}`, append(cloud, "reeve-type", "of the header"), "of the CloudEvent"},
		{"the header's", envelope, []string{"reeve-type", "of the header"}, "of the header"},
		{"an empty header says nothing", envelope, []string{"reeve-type", ""}, "of the envelope"},
		{"the envelope's", envelope, nil, "of the envelope"},
		{"the content's in an envelope", `{"topic":"orders","payload":{"content":{"type":"of the content"}}}`, nil, "of the content"},
		{"the content's of a raw event", ` {"a":{"type":"no"},"type":"of the content"} `, nil, "of the content"},
		{"of two the last counts", `{"type":"first","type":"last"}`, nil, "last"},
		{"one that is no text", `{"type":1}`, nil, ""},
		{"one that is too long", `{"type":"` + strings.Repeat("x", MaxField+1) + `"}`, nil, ""},
		{"content that is no object", `["type"]`, nil, ""},
		{"content that is no JSON", `type`, nil, ""},
		{"no content", ``, nil, ""},
	} {
		if got, err := Type("orders", record(c.value, c.headers...)); got != c.want || err != nil {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	var format *FormatError
	if _, err := Type("orders", record("{", "content-type", ContentType)); !errors.As(err, &format) {
		t.Errorf("a record that breaks its format: %v", err)
	}
}

func TestJSONIsTheContentWhereItIsJSON(t *testing.T) {
	for value, want := range map[string]string{
		`{"a":1}`: `{"a":1}`, `{"topic":"orders","payload":{"content":[1]}}`: `[1]`, ` 7 `: ` 7 `, `null`: `null`, `{"a":`: "", "": "", "\xff": "", "\"\xff\"": "",
	} {
		got, err := JSON("orders", record(value))
		if string(got) != want || err != nil || (got == nil) != (want == "") {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
}

func TestMembersAndElementsAreThoseOfTheOuterLevel(t *testing.T) {
	var got []string
	ok := Members([]byte(` {"a": [1,{"x":2}] , "b\n":"c"} `), func(key, value []byte) { got = append(got, string(key)+"="+string(value)) })
	if s := strings.Join(got, " "); !ok || s != `a=[1,{"x":2}] b\n="c"` {
		t.Errorf("%q, %v", s, ok)
	}
	got = nil
	ok = Elements([]byte(` [ 1, {"x":[2]} ,"c"] `), func(value []byte) { got = append(got, string(value)) })
	if s := strings.Join(got, " "); !ok || s != `1 {"x":[2]} "c"` {
		t.Errorf("%q, %v", s, ok)
	}
	for _, bad := range []string{``, `1`, `{`, `[`, `[1]]`, `{}}`, `{"a":1,}`, `[1,]`} {
		if Members([]byte(bad), func(_, _ []byte) {}) || Elements([]byte(bad), func([]byte) {}) {
			t.Errorf("%q passes", bad)
		}
	}
}
