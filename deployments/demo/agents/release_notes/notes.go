package main

import (
	"fmt"
	"strings"
)

// delivery is what the notes are made of: GitHub's payload of a release event.
type delivery struct {
	Action     string `json:"action"`
	Repository struct {
		FullName string `json:"full_name"`
		HTMLURL  string `json:"html_url"`
	} `json:"repository"`
	Release struct {
		TagName     string `json:"tag_name"`
		Name        string `json:"name"`
		Body        string `json:"body"`
		HTMLURL     string `json:"html_url"`
		Target      string `json:"target_commitish"`
		Draft       bool   `json:"draft"`
		Prerelease  bool   `json:"prerelease"`
		PublishedAt string `json:"published_at"`
		Author      struct {
			Login string `json:"login"`
		} `json:"author"`
		Assets []struct {
			Name string `json:"name"`
			Size int64  `json:"size"`
		} `json:"assets"`
	} `json:"release"`
}

// notes is the agent's result.
type notes struct {
	Summary  string `json:"summary"`
	Release  string `json:"release"`
	Publish  bool   `json:"publish"` // whether the notes should be shown: not for drafts and withdrawn releases
	Markdown string `json:"markdown"`
}

func write(d delivery) *notes {
	r := d.Release
	withdrawn := d.Action == "deleted" || d.Action == "unpublished"
	var md strings.Builder
	fmt.Fprintf(&md, "# %s %s\n\n", d.Repository.FullName, title(d))
	if withdrawn {
		md.WriteString("> This release was withdrawn.\n\n")
	}
	if r.Prerelease {
		md.WriteString("> This is a pre-release: expect changes before the final one.\n\n")
	}
	if body := strings.TrimSpace(r.Body); body != "" {
		fmt.Fprintf(&md, "%s\n\n", body)
	}
	fmt.Fprintf(&md, "Released by @%s from `%s`", r.Author.Login, r.Target)
	if day, _, ok := strings.Cut(r.PublishedAt, "T"); ok {
		fmt.Fprintf(&md, " on %s", day)
	}
	fmt.Fprintf(&md, ".\n\n[Commits since](%s/compare/%s...%s)\n", d.Repository.HTMLURL, r.TagName, r.Target)
	for _, asset := range r.Assets {
		fmt.Fprintf(&md, "- %s (%d KiB)\n", asset.Name, (asset.Size+1023)/1024)
	}
	return &notes{
		Summary:  fmt.Sprintf("%s %s %s: notes of %d lines", d.Repository.FullName, r.TagName, d.Action, strings.Count(md.String(), "\n")),
		Release:  d.Repository.FullName + "@" + r.TagName,
		Publish:  !withdrawn && !r.Draft,
		Markdown: md.String(),
	}
}

// title is the tag, with the release's name where it says more.
func title(d delivery) string {
	if name := strings.TrimSpace(d.Release.Name); name != "" && name != d.Release.TagName {
		return d.Release.TagName + ": " + name
	}
	return d.Release.TagName
}
