package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/services/registry/api"
)

func TestWhatDoesNotParseIsToldInWords(t *testing.T) {
	_, number := strconv.ParseInt("x", 10, 64)
	_, large := strconv.ParseInt("99999999999999999999", 10, 64)
	_, flag := strconv.ParseBool("maybe")
	var e api.Event
	for want, err := range map[string]error{
		`limit is "x", which is not a whole number; give a whole number`:                    fmt.Errorf("Invalid format for parameter limit: error binding: %w", number),
		`limit "99999999999999999999" is out of range; give a smaller number`:               fmt.Errorf("Invalid format for parameter limit: error binding: %w", large),
		`delete_group is "maybe", which is not true or false; give true or false`:           fmt.Errorf("Invalid format for parameter delete_group: error binding: %w", flag),
		`partition is out of range; give a smaller number`:                                  errors.New("Invalid format for parameter partition: error binding string parameter: value '99999999999' overflows destination of type: int32"),
		`stream is missing; give it in the query`:                                           errors.New("Invalid format for parameter stream: query parameter 'stream' is required"),
		`topic is given more than once; give it once`:                                       errors.New("Invalid format for parameter topic: multiple values for single value parameter 'topic'"),
		`topic is empty in the path; give one`:                                              errors.New("Invalid format for parameter topic: parameter 'topic' is empty, can't bind its value"),
		`the body is a JSON array: give an object of keys and values; send one JSON object`: json.Unmarshal([]byte(`[]`), &e),
		`created_at: is a JSON string: give a number; correct the fields in errors`:         json.Unmarshal([]byte(`{"created_at":"now"}`), &e),
		`id: is a JSON number: give a text in quotes; correct the fields in errors`:         json.Unmarshal([]byte(`{"id":1}`), &e),
	} {
		p := problemOf(unreadable(err))
		if got := p.Detail + "; " + p.Remediation; got != want || strings.Contains(got, "strconv") {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
