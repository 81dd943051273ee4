"""Which notebook makes each step of an experiment, and the settings of every notebook."""

from kdutils.comparison.settings import AnalyseErrors, CompareMethods
from kdutils.data.settings import LookAtTheData
from kdutils.deployment.settings import AskAStudent
from kdutils.evaluation.settings import EvaluateStudent
from kdutils.human_study.settings import AnalyseHumanStudy, AskAModelToRate, MakeHumanStudy
from kdutils.mini.settings import MakeMiniModels
from kdutils.runs import PROJECT
from kdutils.settings import Settings
from kdutils.student import settings as student
from kdutils.teacher import settings as teacher

NOTEBOOKS = PROJECT / "notebooks"
DATA, EVALUATION, COMPARISON = LookAtTheData.notebook, EvaluateStudent.notebook, CompareMethods.notebook
ERRORS = AnalyseErrors.notebook
REPORT, PEOPLE, RATINGS = teacher.JudgeExplanations.notebook, MakeHumanStudy.notebook, AnalyseHumanStudy.notebook
LABELS, RATER = teacher.LabelQuestions.notebook, AskAModelToRate.notebook
TUNING = student.TrainLabelOnly.notebook  # of a teacher that the study fine-tunes

SETTINGS: dict[str, type[Settings]] = {model.notebook: model for model in (
    LookAtTheData, teacher.ExplainFewShot, teacher.ExplainCritiqueRevision, teacher.ExplainCounterfactual,
    teacher.ExplainTokens, teacher.ExplainContrastive, teacher.JudgeExplanations,
    teacher.LabelQuestions, teacher.ExplainSoftLabels, student.TrainLabelOnly,
    student.TrainStandard, student.TrainMultitask, student.TrainCounterfactual, student.TrainCombined,
    student.TrainTokenRationale, student.TrainShuffled, student.TrainRandomTokens, student.TrainUntagged,
    student.TrainSoftLabel, student.TrainSoftMultitask, student.TrainSoftShuffled, student.TrainTokenKl,
    EvaluateStudent, MakeHumanStudy, AnalyseHumanStudy, AskAModelToRate, CompareMethods, AnalyseErrors, AskAStudent,
    MakeMiniModels)}
