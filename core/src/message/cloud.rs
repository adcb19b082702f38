//! Messages between a device and an edge that runs a model for it: a query with its answer, whole
//! or streamed, and the notice that queries may follow soon.
//!
//! Decides the fields and their ranges. Never decides which model answers, or what it costs.

use serde::{Deserialize, Serialize};

use super::control::id;
use super::json::JsonBody;
use super::{MAX_ID, MAX_SENTENCE, OutOfRange, Text};

/// Longest query, in characters.
pub const MAX_QUERY_CHARS: usize = 100_000;

/// Most entries of a list of [`Context`]: no model's window has use for more.
pub const MAX_LIST: usize = 1024;

/// A query. A missing field has its documented default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscalationRequest {
    /// Chosen by the sender, repeated by every answer: 1 to [`MAX_ID`] bytes.
    pub request_id: String,
    /// The query: 1 to [`MAX_QUERY_CHARS`] characters.
    pub query: Text,
    /// Context that the model should know besides the query. Default: none.
    #[serde(default)]
    pub context: Context,
    /// The desired form of the answer. Default: [`Preferences::default`].
    #[serde(default)]
    pub preferences: Preferences,
    /// How long the sender waits for the answer, in seconds, 1 to 600. Default: 30.
    #[serde(default = "default_timeout")]
    pub timeout_secs: u16,
    /// The requested model, 1 to [`MAX_ID`] bytes. Default: the edge chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the answer comes as [`StreamChunk`]s and a [`StreamEnd`]. Default: whole.
    #[serde(default)]
    pub stream: bool,
}

impl EscalationRequest {
    /// Returns a query with every default.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn new(request_id: impl Into<String>, query: impl Into<Text>) -> Self {
        Self {
            request_id: request_id.into(),
            query: query.into(),
            context: Context::default(),
            preferences: Preferences::default(),
            timeout_secs: default_timeout(),
            model: None,
            stream: false,
        }
    }
}

const fn default_timeout() -> u16 {
    30
}

impl JsonBody for EscalationRequest {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.request_id, "request_id")?;
        let query = self.query.chars().take(MAX_QUERY_CHARS.saturating_add(1)).count();
        OutOfRange::unless((1..=MAX_QUERY_CHARS).contains(&query), "query")?;
        OutOfRange::unless((1..=600).contains(&self.timeout_secs), "timeout_secs")?;
        if let Some(model) = &self.model {
            id(model, "model")?;
        }
        self.context.check()?;
        self.preferences.check()
    }
}

/// Context for a model besides the query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Context {
    /// The role of the model, and its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Text>,
    /// Excerpts it may rely on, best first: up to [`MAX_LIST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knowledge_chunks: Vec<KnowledgeChunk>,
    /// The earlier turns, oldest first: up to [`MAX_LIST`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conversation_history: Vec<ConversationTurn>,
}

impl Context {
    fn check(&self) -> Result<(), OutOfRange> {
        OutOfRange::unless(self.knowledge_chunks.len() <= MAX_LIST, "knowledge_chunks")?;
        OutOfRange::unless(self.conversation_history.len() <= MAX_LIST, "conversation_history")
    }
}

/// An excerpt from the sender's documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnowledgeChunk {
    /// Where it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Text>,
    /// Its text.
    pub text: Text,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationTurn {
    /// The speaker.
    pub role: Speaker,
    /// The content.
    pub content: Text,
}

/// The role of a speaker in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// The author of the rules.
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

/// How an answer should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// How long-winded. Default: normal.
    pub verbosity: Verbosity,
    /// The tone, in one or two words: 1 to [`MAX_ID`] bytes. Default: the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tone: Option<String>,
    /// Most tokens of the answer, 1 to 128,000. Default: 1,024.
    pub max_tokens: u32,
}

impl Default for Preferences {
    fn default() -> Self {
        Self { verbosity: Verbosity::default(), tone: None, max_tokens: 1024 }
    }
}

impl Preferences {
    fn check(&self) -> Result<(), OutOfRange> {
        OutOfRange::unless((1..=128_000).contains(&self.max_tokens), "max_tokens")?;
        let tone = self.tone.as_ref();
        let fits = tone.is_none_or(|tone| (1..=MAX_ID).contains(&tone.len()));
        OutOfRange::unless(fits, "tone")
    }
}

/// The desired length of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verbosity {
    /// The answer alone.
    Brief,
    /// The answer and its grounds.
    #[default]
    Normal,
    /// Everything of use.
    Detailed,
}

/// The whole answer to an [`EscalationRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EscalationResponse {
    /// The id of the request.
    pub request_id: String,
    /// The answer.
    pub content: Text,
    /// The model that answered: 1 to [`MAX_ID`] bytes.
    pub model: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The tokens it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl JsonBody for EscalationResponse {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.request_id, "request_id")?;
        id(&self.model, "model")
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// It is complete.
    Stop,
    /// It reached the most tokens allowed.
    Length,
    /// The model or its service declined to go on.
    Filtered,
    /// It failed before it was complete.
    Failed,
    /// A value of a later version.
    #[serde(other)]
    Unknown,
}

/// The tokens that an answer used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

/// A part of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamChunk {
    /// The id of the request.
    pub request_id: String,
    /// 0 for the first chunk of an answer, then one more each.
    pub sequence: u64,
    /// Whether no chunk follows.
    pub is_final: bool,
    /// The next part of the answer.
    pub data: Text,
}

impl JsonBody for StreamChunk {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.request_id, "request_id")
    }
}

/// The end of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The id of the request.
    pub request_id: String,
    /// How many chunks were sent, so that a missing one is noticed.
    pub chunks: u64,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// The tokens it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl JsonBody for StreamEnd {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.request_id, "request_id")
    }
}

/// The sender's GPU is busy: it may soon escalate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrewarmSignal {
    /// The sender: 1 to [`MAX_ID`] bytes.
    pub device_id: String,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// Usage of the GPU in per cent, 0 to 100.
    pub gpu_usage: f32,
    /// Temperature of the GPU in degrees Celsius, -273 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_temp: Option<f32>,
    /// Why it was sent, for a person: up to [`MAX_SENTENCE`] bytes.
    pub reason: String,
}

impl JsonBody for PrewarmSignal {
    fn check(&self) -> Result<(), OutOfRange> {
        id(&self.device_id, "device_id")?;
        OutOfRange::unless((0.0..=100.0).contains(&self.gpu_usage), "gpu_usage")?;
        let temp = self.gpu_temp.unwrap_or(0.0);
        OutOfRange::unless((-273.0..=1000.0).contains(&temp), "gpu_temp")?;
        OutOfRange::unless(self.reason.len() <= MAX_SENTENCE, "reason")
    }
}
