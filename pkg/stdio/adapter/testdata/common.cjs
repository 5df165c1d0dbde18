exports.blocking = (message) => ({ blocking: message.do })
