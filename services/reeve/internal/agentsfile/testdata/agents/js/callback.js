exports.handle = async (message) => ({});
