module release-notes

go 1.26.0
