// Asks a server everything the tests compare; prints one JSON object.
// node openai_client.mjs BASE_URL '["text", ...]'
import OpenAI from 'openai';

const [baseURL, texts] = [process.argv[2], JSON.parse(process.argv[3])];
const client = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 });
const model = 'all-MiniLM-L6-v2';
const vectors = (answer) => answer.data.map((row) => Array.from(row.embedding));

const byDefault = await client.embeddings.create({ model, input: texts }); // asks for base64
const asFloat = await client.embeddings.create({ model, input: texts, encoding_format: 'float' });
const short = await client.embeddings.create({ model, input: texts, dimensions: 64 });
const models = [];
for await (const each of client.models.list()) models.push(each.id);
let notFound;
try {
  await client.embeddings.create({ model: 'nothing', input: 'x' });
} catch (error) {
  notFound = { status: error.status, code: error.code, param: error.param, hasId: Boolean(error.requestID) };
}
console.log(
  JSON.stringify({
    default: vectors(byDefault),
    float: vectors(asFloat),
    short: vectors(short),
    usage: byDefault.usage,
    models,
    notFound,
  }),
);
