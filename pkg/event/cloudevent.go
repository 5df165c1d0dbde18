package event

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"
)

// binary reads a CloudEvent whose attributes are headers and whose data is the value.
func (p *parsed) binary() error {
	problem := ceProblem(p.ceVersion, p.ceID, p.ceType, p.ceSource)
	if problem == "" {
		problem = p.ceAttributes()
	}
	if problem != "" {
		return &FormatError{"a CloudEvent (ce_specversion)", problem}
	}
	return nil
}

func ceProblem(version, id, typ, source []byte) string {
	switch {
	case !bytes.HasPrefix(version, []byte("1.")):
		return fmt.Sprintf("its specversion is %.20q and only 1.x is known", version)
	case len(id) == 0:
		return "it has no id"
	case len(typ) == 0:
		return "it has no type"
	case len(source) == 0:
		return "it has no source"
	}
	return tooLong("id", id) + tooLong("type", typ) + tooLong("source", source)
}

func tooLong(name string, v []byte) string {
	if len(v) <= MaxField {
		return ""
	}
	return fmt.Sprintf("its %s has %d bytes, at most %d are taken", name, len(v), MaxField)
}

// ceAttributes takes over attributes that were found to be there.
func (p *parsed) ceAttributes() (problem string) {
	p.id, p.typ, p.source = p.ceID, p.ceType, p.ceSource
	if len(p.ceTime) > 0 {
		t, err := time.Parse(time.RFC3339Nano, string(p.ceTime))
		if err != nil {
			return fmt.Sprintf("its time %.40q is no RFC 3339 time", p.ceTime)
		}
		p.createdAt = t
	}
	return ""
}

// structured reads a CloudEvent whose attributes and data are one JSON object.
func (p *parsed) structured(mediaType, value []byte) error {
	claim := fmt.Sprintf("a CloudEvent (content-type %.60s)", mediaType)
	if !bytes.EqualFold(mediaType, []byte("application/cloudevents+json")) {
		return &FormatError{claim, "only application/cloudevents+json is known"}
	}
	var data, data64 []byte
	problem := ""
	ok := object(value, func(key, v []byte) {
		var to *[]byte
		switch string(key) {
		case "specversion":
			to = &p.ceVersion
		case "id":
			to = &p.ceID
		case "type":
			to = &p.ceType
		case "source":
			to = &p.ceSource
		case "time":
			to = &p.ceTime
		case "data":
			data = v
			return
		case "data_base64":
			data64 = v
			return
		default:
			return
		}
		text, ok := optional(v)
		if !ok && problem == "" {
			problem = fmt.Sprintf("its %s is no string", key)
		}
		*to = text
	})
	switch {
	case !ok:
		problem = "its value is no JSON object"
	case problem == "":
		problem = ceProblem(p.ceVersion, p.ceID, p.ceType, p.ceSource)
	}
	if problem == "" {
		problem = p.ceAttributes()
	}
	if problem == "" {
		problem = p.data(data, data64)
	}
	if problem != "" {
		return &FormatError{claim, problem}
	}
	return nil
}

// data says where the content of a structured CloudEvent is.
func (p *parsed) data(data, data64 []byte) (problem string) {
	switch {
	case data64 == nil || string(data64) == "null":
		p.content, p.json = data, true
		if data == nil {
			p.content, p.json = nil, false
		}
		return ""
	case data != nil:
		return "it has both data and data_base64"
	}
	text, ok := unquote(data64)
	if !ok {
		return "its data_base64 is no string"
	}
	decoded, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return "its data_base64 is no base64"
	}
	p.content = nonNil(decoded)
	return ""
}
