//! A connection to a CRI socket.

use std::{path::Path, time::Duration};

use tonic::transport::{Channel, Endpoint};
use tripod_cri_api::{
    own::images_client::ImagesClient,
    v1::{
        Container, ContainerFilter, ListContainersRequest, ListPodSandboxRequest, PodSandbox, VersionRequest,
        image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
    },
};

use crate::CliError;

/// The longest message either way, as the kubelet has it.
const MAX_MESSAGE: usize = 16 << 20;

/// How long the daemon may take to answer the first question.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Both services of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
    /// Images, as far as only a tripod knows it.
    pub own: ImagesClient<Channel>,
}

/// A pod or a container that an ID or a name means.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Pod(PodSandbox),
    Container(Container),
}

impl Client {
    /// Connects, and makes sure that somebody answers.
    pub async fn connect(socket: &Path) -> Result<Self, CliError> {
        let failed = |source| CliError::Connect { socket: socket.to_owned(), source };
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed)?;
        let runtime = RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let own = ImagesClient::new(channel.clone());
        let images = ImageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let client = Self { runtime, images, own };
        let question = VersionRequest { version: "v1".to_owned() };
        match tokio::time::timeout(FIRST_ANSWER, client.runtime.clone().version(question)).await {
            Ok(answer) => answer.map_err(CliError::call("ask for the version"))?,
            Err(_) => {
                let seconds = FIRST_ANSWER.as_secs();
                let message = format!("the daemon at {} did not answer within {seconds} s", socket.display());
                return Err(CliError::NotFound(message));
            }
        };
        Ok(client)
    }

    /// All containers, or those that a filter lets through.
    pub(crate) async fn containers(&mut self, filter: Option<ContainerFilter>) -> Result<Vec<Container>, CliError> {
        let answer = self.runtime.list_containers(ListContainersRequest { filter }).await;
        Ok(answer.map_err(CliError::call("list containers"))?.into_inner().containers)
    }

    /// All pods.
    pub(crate) async fn pods(&mut self) -> Result<Vec<PodSandbox>, CliError> {
        let answer = self.runtime.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await;
        Ok(answer.map_err(CliError::call("list pods"))?.into_inner().items)
    }

    /// The container that a word means: its ID, the beginning of it, or its name.
    pub(crate) async fn container(&mut self, word: &str) -> Result<Container, CliError> {
        let all = self.containers(None).await?;
        let word = newest(&all, word).unwrap_or(word);
        let meant = pick(&all, word, "container", |one| (&one.id, name(one.metadata.as_ref().map(|m| &m.name))))?;
        meant.cloned().ok_or_else(|| CliError::NotFound(format!("no container {word:?}; `tripod ps -a` shows all")))
    }

    /// The attempt before the one that a word means.
    pub(crate) async fn container_before(&mut self, word: &str) -> Result<Container, CliError> {
        let now = self.container(word).await?;
        let earlier = before(self.containers(None).await?, &now);
        earlier.ok_or_else(|| CliError::NotFound(format!("no attempt before this one at container {word} is kept")))
    }

    /// The pod that a word means: its ID, the beginning of it, or its name; or those of a container in it.
    pub(crate) async fn pod(&mut self, word: &str) -> Result<PodSandbox, CliError> {
        let pods = self.pods().await?;
        if let Some(pod) = pick(&pods, word, "pod", |one| (&one.id, name(one.metadata.as_ref().map(|m| &m.name))))? {
            return Ok(pod.clone());
        }
        match self.container(word).await {
            Err(CliError::NotFound(_)) => {}
            Err(error) => return Err(error),
            Ok(container) => {
                if let Some(pod) = pods.into_iter().find(|pod| pod.id == container.pod_sandbox_id) {
                    return Ok(pod);
                }
            }
        }
        Err(CliError::NotFound(format!("no pod {word:?}, nor a container of that name; `tripod pods` shows all")))
    }

    /// The container or pod that a word means, containers first.
    pub(crate) async fn object(&mut self, word: &str) -> Result<Object, CliError> {
        let containers = self.containers(None).await?;
        let key = |one: &Container| one.metadata.as_ref().map(|metadata| metadata.name.clone());
        if let Some(container) = pick(&containers, word, "container", |one| (&one.id, key(one)))? {
            return Ok(Object::Container(container.clone()));
        }
        let pods = self.pods().await?;
        let key = |one: &PodSandbox| one.metadata.as_ref().map(|metadata| metadata.name.clone());
        match pick(&pods, word, "pod", |one| (&one.id, key(one)))? {
            Some(pod) => Ok(Object::Pod(pod.clone())),
            None => {
                let message = format!("no container or pod {word:?}; `tripod ps -a` and `tripod pods` show all");
                Err(CliError::NotFound(message))
            }
        }
    }
}

fn name(name: Option<&String>) -> Option<String> {
    name.cloned()
}

/// The ID of the last of the attempts at one container of one pod, if a word is their name: a kubelet that starts a
/// container anew keeps the one before it for its log.
fn newest<'a>(all: &'a [Container], word: &str) -> Option<&'a str> {
    let mut attempts = all.iter().filter_map(|one| match &one.metadata {
        Some(metadata) if metadata.name == word => Some((metadata.attempt, one)),
        _ => None,
    });
    let first = attempts.next()?;
    let in_one_pod = attempts.clone().all(|(_, one)| one.pod_sandbox_id == first.1.pod_sandbox_id);
    let last = attempts.fold(first, |last, one| if one.0 > last.0 { one } else { last });
    in_one_pod.then_some(last.1.id.as_str())
}

/// The last attempt before one at the same container.
fn before(all: Vec<Container>, now: &Container) -> Option<Container> {
    let key = |one: &Container| one.metadata.clone().unwrap_or_default();
    let wanted = key(now);
    let earlier = all.into_iter().filter(|one| {
        let known = key(one);
        one.pod_sandbox_id == now.pod_sandbox_id && known.name == wanted.name && known.attempt < wanted.attempt
    });
    earlier.max_by_key(|one| key(one).attempt)
}

/// The one of a list that a word means. Two of them is an error: a guess could stop the wrong one.
fn pick<'a, T>(
    all: &'a [T],
    word: &str,
    what: &str,
    key: impl Fn(&'a T) -> (&'a String, Option<String>),
) -> Result<Option<&'a T>, CliError> {
    if let Some(exact) = all.iter().find(|one| key(one).0 == word) {
        return Ok(Some(exact));
    }
    let named: Vec<&T> = all.iter().filter(|one| key(one).1.as_deref() == Some(word)).collect();
    let found = if named.is_empty() {
        all.iter().filter(|one| !word.is_empty() && key(one).0.starts_with(word)).collect()
    } else {
        named
    };
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let ids: Vec<String> = several.iter().map(|one| crate::show::short(key(one).0)).collect();
            Err(CliError::Usage(format!("{word:?} means more than one {what}: {}; give the ID", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use tripod_cri_api::v1::{Container, ContainerMetadata};

    use super::{before, newest, pick};

    fn container(id: &str, pod: &str, name: &str, attempt: u32) -> Container {
        Container {
            id: id.to_owned(),
            pod_sandbox_id: pod.to_owned(),
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt }),
            ..Container::default()
        }
    }

    #[test]
    fn a_name_means_the_last_attempt_in_a_pod() {
        let mut all = vec![container("a", "p", "web", 1), container("b", "p", "web", 2), container("c", "p", "web", 0)];
        assert_eq!(newest(&all, "web"), Some("b"));
        assert_eq!(newest(&all, "db"), None);
        assert_eq!(before(all.clone(), &all[1]).unwrap().id, "a");
        assert!(before(all.clone(), &all[2]).is_none());
        all.push(container("d", "other", "web", 3));
        assert_eq!(newest(&all, "web"), None);
    }

    #[test]
    fn words_mean_ids_then_names_then_beginnings() {
        let all = vec![("aa11".to_owned(), "web"), ("aa22".to_owned(), "db"), ("bb33".to_owned(), "aa22")];
        let find = |word| pick(&all, word, "container", |one| (&one.0, Some(one.1.to_owned())));
        assert_eq!(find("aa22").unwrap().unwrap().1, "db");
        assert_eq!(find("web").unwrap().unwrap().0, "aa11");
        assert_eq!(find("bb").unwrap().unwrap().0, "bb33");
        assert!(find("zz").unwrap().is_none());
        assert!(find("").unwrap().is_none());
        let error = find("aa").unwrap_err().to_string();
        assert!(error.contains("more than one container"), "{error}");
    }
}
