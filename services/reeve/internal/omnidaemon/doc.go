// Package omnidaemon makes agents.yaml of an OmniDaemon runner, the Python program that registers agents and runs them.
//
// The runner is read and never run: Python's own parser takes it apart (reader.py), and what it registers by constants,
// names and the usual helpers is translated. The rest stands as a comment in the file and is told as a Note; nothing is
// left out in silence. The file always loads: an agent that Reeve wouldn't take as it is becomes a comment as a whole.
package omnidaemon
